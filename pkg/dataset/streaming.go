package dataset

import (
	"context"
	"encoding/json"
)

// Stream gives samples one after the other: pictures that can only be read in order, such as those of shards in a
// bucket. It need not end: a stream that is used up begins anew in another order. The order is a function of the
// stream's seed and of the state that it was started from, whatever the timing. Not for concurrent use.
type Stream interface {
	// Name is what to call the set in messages.
	Name() string
	// Next is the next sample. A sample that cannot be used (a broken member of a shard, no caption) is returned with
	// its Key and Err set. An error of Next itself says that the stream cannot go on; after an interrupt by ctx it can.
	Next(ctx context.Context) (Sample, error)
	// State is where the stream stands behind the last Next, for the program's way to start it again there. It is
	// asked for after every sample, and must therefore be small and quick.
	State() (json.RawMessage, error)
	// Close ends the stream.
	Close() error
}

// Sample is one picture of a stream with what is known of it.
type Sample struct {
	Example Example // its ImageID is negative where the sample has none
	Picture []byte  // encoded; the receiver may keep it
	Err     error   // why the sample cannot be used; nil if it can
}
