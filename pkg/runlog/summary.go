package runlog

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"time"
)

// Names of the picture sets in Summary.Retrieval, Summary.RetrievalBefore and GalleryItem.Split.
const (
	SplitTrain   = "train"   // pictures that the run trained on
	SplitHeldout = "heldout" // pictures that it never trained on
)

// States in Summary.Status.
const (
	StatusFinished    = "finished"    // all steps were done
	StatusTimeLimit   = "time limit"  // train.max_time ended the run
	StatusInterrupted = "interrupted" // the user or the system ended the run, which saved a checkpoint
	StatusFailed      = "failed"      // an error ended the run; log.txt names it
	StatusRunning     = "running"     // the run goes on, or was killed
)

// Float is a measured number. JSON has no NaN or infinity: they are written as null, and null is read as NaN,
// so that a run that diverged still leaves a summary.
type Float float64

// MarshalJSON writes the number, or null if it is NaN or infinite.
func (f Float) MarshalJSON() ([]byte, error) {
	if !isFinite(float64(f)) {
		return []byte("null"), nil
	}
	return appendNumber(nil, float64(f)), nil
}

// UnmarshalJSON reads a number, or NaN from null.
func (f *Float) UnmarshalJSON(data []byte) error {
	if string(data) == "null" {
		*f = Float(math.NaN())
		return nil
	}
	return json.Unmarshal(data, (*float64)(f))
}

// Summary is summary.json: what a run was and what came out.
type Summary struct {
	Status  string `json:"status"`           // one of the states above
	Command string `json:"command"`          // the command line
	Version string `json:"version"`          // of blip2
	Commit  string `json:"commit,omitempty"` // of the source that blip2 was built from

	Backend string `json:"backend"`          // go, xla:cpu, xla:cuda or the path of a plugin
	Device  string `json:"device,omitempty"` // as the backend names it
	DType   string `json:"dtype,omitempty"`  // of the computation

	Started        time.Time `json:"started"`
	Seconds        Float     `json:"seconds"`         // the whole run, with evaluation
	CompileSeconds Float     `json:"compile_seconds"` // building and compiling of graphs, part of Seconds

	Steps     int   `json:"steps"`         // optimizer steps done, with those before a resume
	Epochs    Float `json:"epochs"`        // passes over the training pairs
	BatchSize int   `json:"batch_size"`    // image–text pairs per step
	ImgPerS   Float `json:"img_per_s"`     // pictures per second of training, without compilation and evaluation
	MFU       Float `json:"mfu,omitempty"` // share of the device's peak FLOP/s that the model's FLOPs took, 0 to 1

	// Loss and its terms are means over the last logging interval; stage 1 alone has terms.
	Loss    Float `json:"loss"`
	LossITC Float `json:"loss_itc,omitzero"`
	LossITM Float `json:"loss_itm,omitzero"`
	LossITG Float `json:"loss_itg,omitzero"`

	TrainImages int `json:"train_images"` // pictures trained on
	TrainTexts  int `json:"train_texts"`  // captions trained on

	Parameters          int64 `json:"parameters"`
	TrainableParameters int64 `json:"trainable_parameters"`

	BadSamples int    `json:"bad_samples"`          // samples that could not be read and were replaced
	Checkpoint string `json:"checkpoint,omitempty"` // folder of the last one, relative to the run folder

	// Scores are those of the last evaluation, the others those of the untrained model.
	Scores
	RetrievalBefore map[string]RetrievalScores `json:"retrieval_before,omitempty"`
	CaptionsBefore  map[string]CaptionScores   `json:"captions_before,omitempty"`
}

// SetTerm sets the term of the loss that measurements call loss_itc, loss_itm or loss_itg.
func (s *Summary) SetTerm(name string, value float64) {
	switch name {
	case "loss_itc":
		s.LossITC = Float(value)
	case "loss_itm":
		s.LossITM = Float(value)
	case "loss_itg":
		s.LossITG = Float(value)
	}
}

// RetrievalScores are the scores of one set of pictures and texts. Every score is in percent, 0 to 100.
//
// i2t_rK is the share of pictures that have one of their own texts among the K best of all texts; t2i_rK is the share
// of texts whose picture is among the K best of all pictures. A chance score is what a random ranking gives on
// average; chance_r1 and its like are those of image→text, and 0 means not known.
type RetrievalScores struct {
	Images int `json:"images"`
	Texts  int `json:"texts"`

	I2TR1  Float `json:"i2t_r1"`
	I2TR5  Float `json:"i2t_r5"`
	I2TR10 Float `json:"i2t_r10"`
	T2IR1  Float `json:"t2i_r1"`
	T2IR5  Float `json:"t2i_r5"`
	T2IR10 Float `json:"t2i_r10"`

	ChanceR1     Float `json:"chance_r1"`
	ChanceR5     Float `json:"chance_r5,omitempty"`
	ChanceR10    Float `json:"chance_r10,omitempty"`
	ChanceT2IR1  Float `json:"chance_t2i_r1,omitempty"`
	ChanceT2IR5  Float `json:"chance_t2i_r5,omitempty"`
	ChanceT2IR10 Float `json:"chance_t2i_r10,omitempty"`
}

// I2T returns the image→text scores R@1, R@5 and R@10 in percent.
func (s RetrievalScores) I2T() [3]Float { return [3]Float{s.I2TR1, s.I2TR5, s.I2TR10} }

// T2I returns the text→image scores R@1, R@5 and R@10 in percent.
func (s RetrievalScores) T2I() [3]Float { return [3]Float{s.T2IR1, s.T2IR5, s.T2IR10} }

// ChanceI2T returns what a random ranking scores for image→text, R@1, R@5 and R@10 in percent; 0 is not known.
func (s RetrievalScores) ChanceI2T() [3]Float { return [3]Float{s.ChanceR1, s.ChanceR5, s.ChanceR10} }

// ChanceT2I returns what a random ranking scores for text→image, R@1, R@5 and R@10 in percent; 0 is not known.
func (s RetrievalScores) ChanceT2I() [3]Float {
	return [3]Float{s.ChanceT2IR1, s.ChanceT2IR5, s.ChanceT2IR10}
}

// Gallery is gallery.json: pictures with what the model makes of them.
type Gallery struct {
	Items []GalleryItem `json:"items"`
}

// GalleryItem is one picture of a gallery.
type GalleryItem struct {
	Image     string   `json:"image"`     // file of a JPEG or PNG, relative to the run folder, with forward slashes
	Split     string   `json:"split"`     // SplitTrain or SplitHeldout
	Key       string   `json:"key"`       // the sample's key in its data set
	Captions  []string `json:"captions"`  // the picture's own
	Generated string   `json:"generated"` // what the model writes for the picture

	BestMatch        string `json:"best_match"`         // the text with the highest ITM score
	BestMatchProb    Float  `json:"best_match_prob"`    // its ITM probability, 0 to 1
	BestMatchCorrect bool   `json:"best_match_correct"` // whether it is one of the picture's own captions

	Credit string `json:"credit,omitempty"` // author, source and licence
}

// WriteSummary writes summary.json of a run folder, atomically.
func WriteSummary(runDir string, s Summary) error { return writeJSON(runDir, SummaryFile, s) }

// ReadSummary reads summary.json of a run folder.
func ReadSummary(runDir string) (Summary, error) {
	var s Summary
	err := readJSON(runDir, SummaryFile, &s)
	return s, err
}

// WriteGallery writes gallery.json of a run folder, atomically.
func WriteGallery(runDir string, g Gallery) error { return writeJSON(runDir, GalleryFile, g) }

// ReadGallery reads gallery.json of a run folder.
func ReadGallery(runDir string) (Gallery, error) {
	var g Gallery
	err := readJSON(runDir, GalleryFile, &g)
	return g, err
}

func writeJSON(runDir, name string, v any) error {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false) // captions stay as people wrote them
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("encoding %s: %w", name, err)
	}
	return WriteFile(filepath.Join(runDir, name), out.Bytes())
}

func readJSON(runDir, name string, v any) error {
	path := filepath.Join(runDir, name)
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("reading %s: %w", name, err)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%s is damaged or not from this program: %w", path, err)
	}
	return nil
}
