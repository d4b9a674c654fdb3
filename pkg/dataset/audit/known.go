package audit

import (
	"fmt"
	"path/filepath"
	"strings"
)

// Size is how large a data set is.
type Size struct {
	Pictures int     `json:"pictures"`         // 0 for not known
	Texts    int     `json:"texts"`            // likewise
	Within   float64 `json:"within,omitempty"` // how far a count may be off, as a part of it
}

// known are the sizes of published annotation files, by file name without ending (spec/data.md 1 and 2).
var known = map[string]Size{
	"coco_karpathy_train":                        {113287, 566747, 0},
	"coco_karpathy_val":                          {5000, 25010, 0},
	"coco_karpathy_test":                         {5000, 25010, 0},
	"coco_karpathy_val_gt":                       {5000, 25010, 0},
	"coco_karpathy_test_gt":                      {5000, 25010, 0},
	"captions_val2017":                           {5000, 25014, 0},
	"captions_val2014":                           {40504, 202654, 0},
	"captions_train2014":                         {82783, 414113, 0},
	"flickr30k_train":                            {29000, 145000, 0},
	"flickr30k_val":                              {1014, 5070, 0},
	"flickr30k_test":                             {1000, 5000, 0},
	"nocaps_val_4500_captions":                   {4500, 45000, 0},
	"vg_caption":                                 {0, 821774, 0},
	"v2_OpenEnded_mscoco_train2014_questions":    {82783, 443757, 0},
	"v2_OpenEnded_mscoco_val2014_questions":      {40504, 214354, 0},
	"v2_OpenEnded_mscoco_test2015_questions":     {81434, 447793, 0},
	"v2_OpenEnded_mscoco_test-dev2015_questions": {0, 107394, 0},
	"v2_mscoco_train2014_annotations":            {82783, 443757, 0},
	"v2_mscoco_val2014_annotations":              {40504, 214354, 0},
	"mscoco_train2014_annotations":               {0, 9009, 0},
	"mscoco_val2014_annotations":                 {0, 5046, 0},
	"train_balanced_questions":                   {0, 943000, 0},
	"val_balanced_questions":                     {0, 132062, 0},
	"testdev_balanced_questions":                 {398, 12578, 0},
}

// KnownSize returns the size of the annotation file of a published data set, by its name.
func KnownSize(path string) (Size, bool) {
	base := filepath.Base(path)
	base = strings.TrimSuffix(base, ".gz")
	size, ok := known[strings.TrimSuffix(base, filepath.Ext(base))]
	return size, ok
}

// Compare says how a data set differs from the size that it should have; nothing if it does not.
func (s Size) Compare(pictures, texts int) []string {
	var out []string
	for _, c := range []struct {
		what      string
		got, want int
	}{{"pictures", pictures, s.Pictures}, {"texts", texts, s.Texts}} {
		if c.want == 0 {
			continue
		}
		if off := float64(c.got-c.want) / float64(c.want); off < -s.Within || off > s.Within {
			out = append(out, fmt.Sprintf("%d %s, expected %d (%+.1f %%)", c.got, c.what, c.want, 100*off))
		}
	}
	return out
}
