package cli

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
)

func newScoreCmd(app *App) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "score",
		Short: "Judge result files as the official tools do",
		Long: `Scores files of results against files of annotations, with the numbers of the field's official tools, without
Python or Java. Scores go to stdout; what may make them wrong (pictures without a result, results without a picture,
results given twice, a split of an unexpected size) is said on stderr.`,
	}
	cmd.AddCommand(newScoreCaptionsCmd(app), newScoreVQACmd(app), newScoreGQACmd(app), newScoreRetrievalCmd(app))
	return cmd
}

// namedFile is a flag with the file that it names; path is empty where the flag is not given.
type namedFile struct{ flag, path string }

// checkOutputs refuses files to write that are among those to read, or are each other, and those that cannot be
// written, before any work is done.
func checkOutputs(inputs []namedFile, outputs ...namedFile) error {
	others := inputs
	for _, out := range outputs {
		if out.path == "" {
			continue
		}
		for _, other := range others {
			if sameFile(out.path, other.path) {
				return usagef("%s %s: that is the file of %s, which would be lost; name another one", out.flag, out.path,
					other.flag)
			}
		}
		others = append(others[:len(others):len(others)], out)
		if info, err := os.Stat(out.path); err == nil && info.IsDir() {
			return usagef("%s %s: it is a folder; name a file", out.flag, out.path)
		}
		if info, err := os.Stat(filepath.Dir(out.path)); err != nil || !info.IsDir() {
			return fmt.Errorf("%s %s: there is no folder %s; make it first", out.flag, out.path, filepath.Dir(out.path))
		}
	}
	return nil
}

// sameFile says whether two paths name one file, which need not exist. Devices and pipes are none that could be lost.
func sameFile(a, b string) bool {
	if a == "" || b == "" {
		return false
	}
	infoA, errA := os.Stat(a)
	infoB, errB := os.Stat(b)
	if errA == nil && errB == nil {
		return infoA.Mode().IsRegular() && os.SameFile(infoA, infoB)
	}
	absA, errA := filepath.Abs(a)
	absB, errB := filepath.Abs(b)
	return errA == nil && errB == nil && absA == absB
}
