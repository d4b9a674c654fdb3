package device

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// fromFiles finds the wheels of the set among the files and folders of --from and verifies their checksums.
func (in *installer) fromFiles(ctx context.Context) ([]localWheel, error) {
	candidates, err := listWheels(in.o.From)
	if err != nil {
		return nil, err
	}
	var wheels []localWheel
	var missing []string
	for _, w := range in.set.wheels {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		path := pick(candidates, w)
		if path == "" {
			missing = append(missing, w.file)
			continue
		}
		local, err := in.accept(path, w)
		if err != nil {
			return nil, err
		}
		wheels = append(wheels, local)
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("--from lacks %s of the %s plugin: %s", count(len(missing), "wheel"), in.set.kind,
			strings.Join(missing, ", "))
	}
	return wheels, nil
}

// listWheels expands folders and refuses files that are not wheels by their name.
func listWheels(from []string) (paths []string, err error) {
	for _, path := range from {
		info, err := os.Stat(path)
		if err != nil {
			return nil, fmt.Errorf("--from: %w", err)
		}
		if info.IsDir() {
			for _, pattern := range []string{"*.whl", "*.jar"} {
				found, err := filepath.Glob(filepath.Join(globEscape(path), pattern))
				if err != nil {
					return nil, fmt.Errorf("--from: %w", err)
				}
				paths = append(paths, found...)
			}
			continue
		}
		if !strings.HasSuffix(path, ".whl") && !strings.HasSuffix(path, ".jar") {
			return nil, &OptionError{"from", path, "must be a wheel (.whl, for data also .jar) or a folder of wheels; a " +
				"plugin's library " +
				"itself needs no installing, use --backend xla:/path/plugin.so"}
		}
		paths = append(paths, path)
	}
	return paths, nil
}

// globEscape makes a folder's name stand for itself in a pattern.
func globEscape(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(s)
}

// pick returns the file that is wheel w: the one with its name, else the last one of its project.
func pick(candidates []string, w wheel) (path string) {
	for _, c := range candidates {
		project, _ := parseWheelName(filepath.Base(c))
		switch {
		case filepath.Base(c) == w.file:
			return c
		case w.project != "" && project == normalProject(w.project):
			path = c
		}
	}
	return path
}

// parseWheelName splits project-version-tags.whl; both are "" if the name is not of that form.
func parseWheelName(file string) (project, version string) {
	parts := strings.Split(strings.TrimSuffix(file, ".whl"), "-")
	if len(parts) < 5 {
		return "", ""
	}
	return normalProject(parts[0]), parts[1]
}

// accept verifies the checksum of a local wheel. With AllowUnpinned another checksum is accepted and recorded.
func (in *installer) accept(path string, w wheel) (localWheel, error) {
	sum, err := hashFile(path)
	if err != nil {
		return localWheel{}, fmt.Errorf("--from: %w", err)
	}
	local := localWheel{path: path, record: Wheel{filepath.Base(path), sizeOf(path), sum}, version: w.version,
		pinned: sum == w.sha256}
	if local.pinned {
		return local, nil
	}
	if !in.o.AllowUnpinned {
		wrong := &checksumError{what: path, got: sum, want: w.sha256 + " (" + w.file + ")"}
		return localWheel{}, fmt.Errorf("%w; if you trust this file, add --allow-unpinned", wrong)
	}
	if _, version := parseWheelName(filepath.Base(path)); version != "" {
		local.version = version
	}
	if !filepath.IsLocal(local.version) || strings.ContainsAny(local.version, `/\`) {
		return localWheel{}, fmt.Errorf("--from: %s has no version in its name", path)
	}
	in.log.Warn("wheel is not the one this program was tested with", "file", path, "sha256", sum)
	return local, nil
}
