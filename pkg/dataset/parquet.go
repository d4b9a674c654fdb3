package dataset

import (
	"errors"
	"io"
)

type parquetFile struct{}

func (p *parquetFile) Close() error                              { return nil }
func (p *parquetFile) picture(row []byte) (io.ReadCloser, error) { return nil, errors.New("x") }
func (d *document) openParquet(f file) error                     { return errors.New("x") }
