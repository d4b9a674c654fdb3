package spice

import (
	"blip2/pkg/internal/atomicfile"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// NoJavaError says that there is no Java to run SPICE with.
type NoJavaError struct{ Reason string }

// Remedy says what to do.
func (e *NoJavaError) Remedy() string {
	return "install Java 8 to 17 (for example OpenJDK 17) or name it in JAVA_HOME"
}

func (e *NoJavaError) Error() string { return "SPICE needs Java: " + e.Reason + "; " + e.Remedy() }

// MemoryError says that the program's memory was full.
type MemoryError struct{ Megabytes int }

// Error says how much it had.
func (e *MemoryError) Error() string {
	return fmt.Sprintf("SPICE ran out of its %d MB of memory; shorter captions, fewer threads or more memory help",
		e.Megabytes)
}

// program is the Java program, ready to run.
type program struct {
	o       Options
	java    string
	version int // of Java: 8, 11, 17, ...
	classes string
	log     *slog.Logger
}

// newProgram finds Java and the program's jars.
func newProgram(ctx context.Context, o Options) (*program, error) {
	if o.Megabytes == 0 {
		o.Megabytes = 6144
	}
	p := &program{o: o, log: o.Logger}
	if p.log == nil {
		p.log = slog.Default()
	}
	var err error
	if p.java, err = findJava(o.Java); err != nil {
		return nil, err
	}
	if p.version, err = javaVersion(ctx, p.java); err != nil {
		return nil, err
	}
	if p.version > 17 {
		p.log.Warn("SPICE was tested with Java 8 to 17", "java", p.java, "version", p.version)
	}
	jars, err := findJars(o.Dir, p.version)
	if err != nil {
		return nil, err
	}
	p.classes = strings.Join(jars, string(os.PathListSeparator))
	return p, p.openParses()
}

// openParses makes the folder of parses. Where that cannot be written to, none are kept.
func (p *program) openParses() error {
	if p.o.ParseDir == "" {
		return nil
	}
	err := os.MkdirAll(p.o.ParseDir, 0o755)
	if err == nil {
		var probe *os.File
		if probe, err = os.CreateTemp(p.o.ParseDir, ".probe-*"); err == nil {
			err = errors.Join(probe.Close(), os.Remove(probe.Name()))
		}
	}
	if atomicfile.NotWritable(err) {
		p.log.Warn("SPICE's parses are not kept for the next time", "error", err)
		p.o.ParseDir = ""
		return nil
	}
	if err != nil {
		return fmt.Errorf("SPICE's folder of parses: %w", err)
	}
	return nil
}

// findJava returns the command.
func findJava(named string) (string, error) {
	if named == "" {
		if home := os.Getenv("JAVA_HOME"); home != "" {
			path := filepath.Join(home, "bin", "java")
			if _, err := exec.LookPath(path); err == nil {
				return path, nil
			}
		}
		named = "java"
	}
	path, err := exec.LookPath(named)
	if err != nil {
		return "", &NoJavaError{err.Error()}
	}
	return path, nil
}

var versionLine = regexp.MustCompile(`version "(?:1\.)?([0-9]+)`)

// javaVersion asks Java for its version: 8 for 1.8, else the first number.
func javaVersion(ctx context.Context, java string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, java, "-version")
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		return 0, &NoJavaError{fmt.Sprintf("%s -version: %v: %.200s", java, err, strings.TrimSpace(string(out)))}
	}
	m := versionLine.FindSubmatch(out)
	if m == nil {
		return 0, &NoJavaError{fmt.Sprintf("%s -version says %.200q", java, out)}
	}
	version, err := strconv.Atoi(string(m[1]))
	if err != nil || version < 8 {
		return 0, &NoJavaError{fmt.Sprintf("%s is version %s", java, m[1])}
	}
	return version, nil
}

// findJars lists the jars below the program's folder. Nashorn, the JavaScript engine by which SPICE writes JSON, is
// part of Java before 15 and cannot be loaded by Java 8.
func findJars(dir string, version int) ([]string, error) {
	var jars []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		name := filepath.Base(path)
		if err != nil || d.IsDir() || !strings.HasSuffix(name, ".jar") {
			return err
		}
		if version < 15 && (strings.HasPrefix(name, "nashorn-") || strings.HasPrefix(name, "asm-")) {
			return nil
		}
		jars = append(jars, path)
		return nil
	})
	if err != nil || !slices.ContainsFunc(jars, func(j string) bool {
		return strings.HasPrefix(filepath.Base(j), "spice-")
	}) {
		return nil, errors.Join(fmt.Errorf("SPICE is not in %s; remedy: blip2 plugin install spice", dir), err)
	}
	slices.Sort(jars)
	return jars, nil
}

// opened are the packages into which the parse cache's serialiser looks.
var opened = []string{"java.lang", "java.util", "java.util.concurrent", "java.util.concurrent.atomic", "java.math",
	"java.text", "java.net", "java.io", "java.nio", "sun.nio.ch", "sun.nio.cs"}

// arguments are those of Java for a batch.
func (p *program) arguments(in, out string) []string {
	args := []string{fmt.Sprintf("-Xmx%dm", p.o.Megabytes), "-XX:+ExitOnOutOfMemoryError", "-Dfile.encoding=UTF-8",
		"-Djava.io.tmpdir=" + filepath.Dir(in)}
	if p.version >= 9 {
		for _, name := range opened {
			args = append(args, "--add-opens=java.base/"+name+"=ALL-UNNAMED")
		}
		args = append(args, "--add-opens=java.sql/java.sql=ALL-UNNAMED")
	}
	args = append(args, "-cp", p.classes, "edu.anu.spice.SpiceScorer", in, "-out", out, "-detailed", "-subset", "-silent",
		"-threads", strconv.Itoa(p.o.threads()))
	if p.caches() {
		args = append(args, "-cache", p.o.ParseDir)
	}
	return args
}

// caches says whether parses are kept. The program's database has code for amd64 only.
func (p *program) caches() bool { return p.o.ParseDir != "" && runtime.GOARCH == "amd64" }

// outOfMemory is the status with which Java leaves when its memory is full.
const outOfMemory = 3

// run runs one batch and explains failures.
func (p *program) run(parent context.Context, limit time.Duration, in, out string) error {
	ctx, cancel := context.WithTimeout(parent, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.java, p.arguments(in, out)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	cmd.WaitDelay = 5 * time.Second
	var messages tail
	cmd.Stdout, cmd.Stderr = &messages, &messages
	p.log.Debug("SPICE", "command", cmd.String())
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case parent.Err() != nil:
		return parent.Err()
	case ctx.Err() != nil:
		return fmt.Errorf("SPICE was stopped after %s; its last words: %s", limit, messages.last())
	case messages.memory || errors.As(err, &exit) && exit.ExitCode() == outOfMemory:
		return &MemoryError{p.o.Megabytes}
	}
	return fmt.Errorf("SPICE: %w; its last words: %s", err, messages.last())
}
