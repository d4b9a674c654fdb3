package config

// Common are the sections that every training has.
type Common struct {
	Seed       int64
	Mesh       Mesh
	Data       Data
	Optim      Optim
	Train      Train
	Checkpoint Checkpoint
	Eval       Eval
	Report     Report
}

// Common returns the sections that every training has.
func (s *Stage1) Common() Common {
	return Common{Seed: s.Seed, Mesh: s.Mesh, Data: s.Data, Optim: s.Optim, Train: s.Train, Checkpoint: s.Checkpoint,
		Eval: s.Eval, Report: s.Report}
}
