package stage1

import (
	"reflect"
	"testing"

	"blip2/pkg/config"
	"blip2/pkg/model"
	"blip2/pkg/tokenizer"
)

// paperConfig is the configuration of the paper's ViT-L/14 run.
func paperConfig() *config.Stage1 { return config.DefaultStage1() }

func vitL() Config { return NewConfig(paperConfig(), BERTVocabulary()) }

// TestNewConfigOfPaper checks the sizes that follow from the default configuration against the paper's parameter
// counts (spec/model.md 5.6).
func TestNewConfigOfPaper(t *testing.T) {
	cfg := vitL()
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	if got := model.Count(TrainableParams(cfg)); got != 183_165_758 {
		t.Errorf("%d trainable parameters with ViT-L/14, want 183,165,758", got)
	}
	if got := model.Count(VisionParams(cfg)); got != 290_581_504 {
		t.Errorf("%d parameters of ViT-L/14, want 290,581,504", got)
	}
}

// TestNewConfigLeavesNothingOut sets every number of the sections to something of its own: a field of Config that is
// still zero was forgotten.
func TestNewConfigLeavesNothingOut(t *testing.T) {
	c := paperConfig()
	c.Loss.ITCGatherGrad, c.Loss.ImageIDs, c.Vision.Remat, c.Train.ContrastiveAccumulation = true, true, true, true
	cfg := NewConfig(c, Vocabulary{Size: 9, Pad: 1, CLS: 2, SEP: 3, DEC: 8})
	value := reflect.ValueOf(cfg)
	for _, section := range []reflect.Value{value, value.FieldByName("Vision"), value.FieldByName("QFormer")} {
		for i := range section.NumField() {
			name := section.Type().Field(i).Name
			if section.Field(i).IsZero() && name != "Compute" {
				t.Errorf("%s.%s is not set", section.Type(), name)
			}
		}
	}
}

func TestVocabularyOf(t *testing.T) {
	words, err := tokenizer.NewWordPiece([]byte("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\ncat\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := Vocabulary{Size: 7, Pad: 0, CLS: 2, SEP: 3, DEC: 6}
	if got := VocabularyOf(words); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
