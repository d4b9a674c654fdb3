package device

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Kinds of data that are installed like plugins: what caption scores need besides this program.
const (
	KindMETEOR = "meteor"
	KindSPICE  = "spice"
)

// anyPlatform is the platform of sets that fit every machine.
const anyPlatform = "any"

// MavenEnv names a mirror of Maven Central.
const MavenEnv = "BLIP2_MAVEN"

// defaultMaven is Maven Central.
const defaultMaven = "https://repo1.maven.org/maven2"

// Kinds returns what can be installed: plugins, then data.
func Kinds() []string { return []string{KindCPU, KindCUDA, KindMETEOR, KindSPICE} }

// checkKind refuses what is no kind.
func checkKind(kind string) error {
	if slices.Contains(Kinds(), kind) {
		return nil
	}
	return &OptionError{"plugin", kind, "must be cpu, cuda, meteor or spice"}
}

// fits says whether a set for a platform can be used on this machine.
func fits(of string) bool { return of == platform() || of == anyPlatform }

// isData says whether a kind is data and no XLA plugin.
func isData(kind string) bool { return kind == KindMETEOR || kind == KindSPICE }

// pycocoevalcap is coco-caption as a package.
func pycocoevalcap(unpacked int64) wheel {
	return wheel{
		project: "pycocoevalcap", version: "1.2", file: "pycocoevalcap-1.2-py3-none-any.whl", size: 104312215,
		sha256: "083ed7910f1aec000b0a237ef6665f74edf19954204d0b1cbdb8399ed132228d", unpacked: unpacked,
	}
}

// jar is a file of Maven Central, which is kept whole.
func jar(folder, file string, size int64, sum string) wheel {
	return wheel{maven: folder + "/" + file, file: file, size: size, sha256: sum, unpacked: size}
}

var meteorSet = &pluginSet{
	kind: KindMETEOR, platform: anyPlatform,
	plugin: "pycocoevalcap/meteor/meteor-1.5.jar",
	keep: regexp.MustCompile(
		`^pycocoevalcap/meteor/(meteor-1\.5\.jar|data/paraphrase-en\.gz)$|\.dist-info/METADATA$`),
	wheels: []wheel{pycocoevalcap(68134875)},
	licences: []string{
		"METEOR 1.5 (the jar, of which only word lists are read): GNU Lesser General Public License 2.1",
		"synonyms: WordNet 3.0 licence, in the jar as synonym/COPYING.WORDNET",
		"paraphrase table: published with METEOR, without a licence of its own",
	},
}

var spiceSet = &pluginSet{
	kind: KindSPICE, platform: anyPlatform,
	plugin: "pycocoevalcap/spice/spice-1.0.jar",
	keep:   regexp.MustCompile(`^pycocoevalcap/spice/(lib/)?[^/]+\.jar$|\.dist-info/METADATA$`),
	wheels: []wheel{
		pycocoevalcap(31336443),
		jar("edu/stanford/nlp/stanford-corenlp/3.6.0", "stanford-corenlp-3.6.0.jar", 7270741,
			"d341d5863276f55782c5ef73212222d6b3b48e02ae1951ab6de7618d28b12742"),
		jar("edu/stanford/nlp/stanford-corenlp/3.6.0", "stanford-corenlp-3.6.0-models.jar", 378116526,
			"d285157bd7887ee3018094b5dbae092e49088b023361ccdb550ee1daf9b2c9bd"),
		jar("org/openjdk/nashorn/nashorn-core/15.4", "nashorn-core-15.4.jar", 2167292,
			"6f816e84dfd63a81d4eaa7829c08337bbaff3ec683ff3bf6bbd90d017a00dc6f"),
		jar("org/ow2/asm/asm/9.6", "asm-9.6.jar", 123598,
			"3c6fac2424db3d4a853b669f4e3d1d9c3c552235e19a319673f887083c2303a1"),
		jar("org/ow2/asm/asm-analysis/9.6", "asm-analysis-9.6.jar", 34041,
			"d92832d7c37edc07c60e2559ac6118b31d642e337a6671edcb7ba9fae68edbbb"),
		jar("org/ow2/asm/asm-commons/9.6", "asm-commons-9.6.jar", 72194,
			"7aefd0d5c0901701c69f7513feda765fb6be33af2ce7aa17c5781fc87657c511"),
		jar("org/ow2/asm/asm-tree/9.6", "asm-tree-9.6.jar", 51935,
			"c43ecf17b539c777e15da7b5b86553b377e2d39a683de6285567d5283888e7ef"),
		jar("org/ow2/asm/asm-util/9.6", "asm-util-9.6.jar", 91131,
			"c635a7402f4aa9bf66b2f4230cea62025a0fe1cd63e8729adefc9b1994fac4c3"),
	},
	licences: []string{
		"SPICE 1.0: GNU Affero General Public License 3, with parts by Stanford University",
		"Stanford CoreNLP 3.6.0: GNU General Public License 3 or later",
		"METEOR 1.5: GNU Lesser General Public License 2.1; WordNet 3.0: WordNet licence",
		"Nashorn 15.4: GNU General Public License 2 with Classpath exception; ASM 9.6: BSD 3-clause",
	},
}

// mavenURL returns where a file of Maven Central, or of the mirror in $BLIP2_MAVEN, is.
func mavenURL(path string) (*url.URL, error) {
	base := os.Getenv(MavenEnv)
	if base == "" {
		base = defaultMaven
	}
	u, err := url.Parse(base)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, &OptionError{MavenEnv, base, "must be the URL of a Maven repository, as in " + defaultMaven}
	}
	return u.JoinPath(path), nil
}

// isFile is the check of an unpacked main file that is no library.
func isFile(path string) error {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a file", path)
	}
	return err
}

// MissingDataError says that data are not installed, or cannot be used.
type MissingDataError struct {
	Kind   string
	Reason string // "not installed"
}

// Remedy is the command that installs the data.
func (e *MissingDataError) Remedy() string {
	if strings.Contains(e.Reason, "damaged") {
		return reinstall(e.Kind)
	}
	return "blip2 plugin install " + e.Kind
}

func (e *MissingDataError) Error() string {
	return fmt.Sprintf("%s: %s; remedy: %s", e.Kind, e.Reason, e.Remedy())
}

// DataDir returns the folder of installed data of a kind, KindMETEOR or KindSPICE. An error says what is wrong and how
// to install it (*MissingDataError). cache is the folder of plugins; empty is what CacheDir() says.
func DataDir(kind, cache string) (string, error) {
	dir, err := cacheDir(cache)
	if err != nil {
		return "", err
	}
	own, reason := store{dir}.find(kind)
	if own == nil {
		return "", &MissingDataError{kind, reason}
	}
	return own.dir, nil
}

// CheckData compares the files of installed data with the checksums of their installation and returns the folder.
func CheckData(ctx context.Context, kind, cache string) (string, error) {
	if !isData(kind) {
		return "", &OptionError{"plugin", kind, "must be meteor or spice"}
	}
	dir, err := DataDir(kind, cache)
	if err != nil {
		return "", err
	}
	m, err := readManifest(dir)
	if err != nil {
		return "", err
	}
	return dir, verifyFiles(ctx, dir, m)
}

// verifyFiles compares the files of an installation with its manifest.
func verifyFiles(ctx context.Context, dir string, m *manifest) error {
	for _, f := range m.Files {
		if err := ctx.Err(); err != nil {
			return err
		}
		path := filepath.Join(dir, filepath.FromSlash(f.Path))
		sum, err := hashFile(path)
		if err == nil && sum != f.SHA256 {
			err = &checksumError{what: "installed file " + path + " is damaged", got: sum, want: f.SHA256}
		}
		if err != nil {
			return fmt.Errorf("%w; remedy: %s", err, reinstall(m.Kind))
		}
	}
	return nil
}
