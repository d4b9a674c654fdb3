package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// localFile is a file of this machine. It stays open, so that it cannot be replaced under the reader.
type localFile struct{ file *os.File }

func openFile(path string) (*localFile, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, bare(err)
	}
	return &localFile{file}, nil
}

// bare leaves out the path of an error: whoever reports it names the file.
func bare(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

func (f *localFile) stat(context.Context) (Info, error) {
	info, err := f.file.Stat()
	switch {
	case err != nil:
		return Info{}, lasting{bare(err)}
	case !info.Mode().IsRegular():
		return Info{}, lasting{errors.New("it is not a regular file")}
	}
	return Info{Size: info.Size(), ModTime: info.ModTime(), Ranges: true,
		Version: fmt.Sprintf("%d-%d", info.Size(), info.ModTime().UnixNano())}, nil
}

func (f *localFile) read(_ context.Context, pin Info, offset, n int64) (io.ReadCloser, error) {
	if n < 0 {
		n = pin.Size - offset
	}
	return io.NopCloser(&fileReader{io.NewSectionReader(f.file, offset, n)}), nil
}

// fileReader marks errors of the disk as lasting; a file that is cut off does not grow again.
type fileReader struct{ section *io.SectionReader }

func (r *fileReader) Read(p []byte) (int, error) {
	n, err := r.section.Read(p)
	if err == io.EOF {
		err = lasting{io.ErrUnexpectedEOF}
	} else if err != nil {
		err = lasting{bare(err)}
	}
	return n, err
}

func (f *localFile) readAt(o *Object, p []byte, offset int64) error {
	n, err := f.file.ReadAt(p, offset)
	if n == len(p) {
		return nil
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return &Error{Name: o.name, Offset: offset + int64(n), Tries: 1, Permanent: true, Err: bare(err)}
}

// Close closes the file.
func (f *localFile) Close() error { return f.file.Close() }
