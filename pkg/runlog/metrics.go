package runlog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"blip2/pkg/internal/atomicfile"
)

// Metrics appends rows to a metrics.jsonl. Every row is one write, so a process that is killed loses at most the
// row that it was writing.
type Metrics struct {
	path string
	file *os.File
	size int64 // bytes of whole rows
}

// OpenMetrics opens path for rows after resumeStep. Rows of later steps, left by a run that went on past its last
// checkpoint, are cut off, and so is a last line that a killed process left unfinished. With resumeStep 0 the
// series starts empty. An unreadable line elsewhere is an error, because the file is then not what it says.
func OpenMetrics(path string, resumeStep int) (*Metrics, error) {
	kept, changed, err := rowsUntil(path, resumeStep)
	if err != nil {
		return nil, err
	}
	if changed {
		if err := WriteFile(path, kept); err != nil {
			return nil, err
		}
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("opening the metrics log: %w", err)
	}
	return &Metrics{path: path, file: file, size: int64(len(kept))}, nil
}

// Append writes one row. After a failed write (a full disk) the file ends with the last whole row again.
func (m *Metrics) Append(r Row) error {
	line, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("%s: %w", m.path, err)
	}
	line = append(line, '\n')
	if _, err := m.file.Write(line); err != nil {
		err = fmt.Errorf("writing step %d to the metrics log: %w", r.Step, atomicfile.Explain(err))
		return errors.Join(err, m.file.Truncate(m.size))
	}
	m.size += int64(len(line))
	return nil
}

// Close syncs the file to disk and closes it.
func (m *Metrics) Close() error {
	if err := errors.Join(m.file.Sync(), m.file.Close()); err != nil {
		return fmt.Errorf("closing the metrics log: %w", err)
	}
	return nil
}

// ReadMetrics reads the rows of a metrics.jsonl, without a last line that a killed process left unfinished.
// If another line cannot be read, it returns the rows before it and an error that names the line.
func ReadMetrics(path string) ([]Row, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the metrics log: %w", err)
	}
	var rows []Row
	err = eachLine(path, data, func(_ []byte, row Row) { rows = append(rows, row) })
	return rows, err
}

// rowsUntil returns the lines of path with step ≤ last, each with its line end, and whether that is less than the file.
func rowsUntil(path string, last int) (kept []byte, changed bool, err error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("opening the metrics log: %w", err)
	}
	if last <= 0 {
		return nil, len(data) > 0, nil
	}
	err = eachLine(path, data, func(line []byte, row Row) {
		if row.Step <= last {
			kept = append(append(kept, line...), '\n')
		}
	})
	return kept, !bytes.Equal(kept, data), err
}

// eachLine calls f for every row of a metrics log, and passes over empty lines and an unfinished last line.
func eachLine(path string, data []byte, f func(line []byte, row Row)) error {
	for number := 1; len(data) > 0; number++ {
		line, rest, whole := bytes.Cut(data, []byte{'\n'})
		data = rest
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		var row Row
		err := json.Unmarshal(line, &row)
		switch {
		case err == nil:
			f(line, row)
		case whole:
			return fmt.Errorf("%s line %d is not a row of metrics: %w (remove the line to go on)", path, number, err)
		}
	}
	return nil
}
