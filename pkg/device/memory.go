package device

// ProgramMemory is the memory that a compiled program takes on its device, in bytes.
type ProgramMemory struct {
	Inputs    int64
	Outputs   int64 // beside those that take the place of an input
	Temporary int64
}
