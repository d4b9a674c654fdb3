package config

import "fmt"

// DataSource is one data set: annotation files with a folder of images, or shards that hold both.
type DataSource struct {
	Annotations string  `yaml:"annotations" path:"file" doc:"annotation file of any known format, or a pattern"`
	Questions   string  `yaml:"questions" hash:"new" path:"file" doc:"official VQA questions, with answers in annotations"`
	Images      string  `yaml:"images" path:"dir" doc:"folder of the images; empty for Parquet files that hold them"`
	Shards      string  `yaml:"shards" hash:"new" path:"location" doc:"tar shards, a path or URL with braces or *"`
	TopK        int     `yaml:"top_k" hash:"new" in:"[0,255]" doc:"captions used of a list ordered best first; 0 for 2"`
	Index       string  `yaml:"index" hash:"new" oneof:"|auto|never" doc:"random access to shards; never: in order"`
	Buffer      int     `yaml:"shuffle_buffer" hash:"new" in:"[0,)" doc:"samples shuffled of shards in order; 0 for 1000"`
	Cache       string  `yaml:"cache" hash:"-" path:"dir" doc:"folder for copies of shards from elsewhere; empty for none"`
	CacheGB     int     `yaml:"cache_gb" hash:"-" in:"[0,)" doc:"most gigabytes of copies; 0 for 100"`
	Split       string  `yaml:"split" doc:"only this split, or several as train+restval; empty for all"`
	Name        string  `yaml:"name" hash:"-" doc:"label in logs; empty for the file name"`
	Format      string  `yaml:"format" hash:"new" oneof:"|json|jsonl|csv|tsv|parquet" doc:"empty: recognised"`
	Columns     Columns `yaml:"columns" hash:"new" doc:"names of fields or columns that are not the usual ones"`
	ImageName   string  `yaml:"image_name" hash:"new" doc:"file names by id, such as COCO_train2014_%012d.jpg"`
	Unit        string  `yaml:"unit" hash:"new" oneof:"|caption|image" doc:"of this data set; empty for data.unit"`
	MaxTexts    int     `yaml:"max_texts" hash:"new" in:"[0,)" doc:"only the first texts of every image; 0 for all"`
	Weight      float64 `yaml:"weight" hash:"new" in:"[0,)" doc:"relative probability, with mix.by weights"`
	Share       float64 `yaml:"share" hash:"new" in:"[0,)" doc:"part of it per epoch, with mix.by blip1; 0 for all"`
	Bare        bool    `yaml:"bare" hash:"new" doc:"keep images without any text, for captioning alone"`
	Expect      Expect  `yaml:"expect" hash:"-" doc:"published size, which data stats compares"`
}

// Columns names the fields of annotation files where they have other names than usual.
type Columns struct {
	Image    string `yaml:"image" hash:"new" doc:"file name of the image; empty for path, file_name and the like"`
	Caption  string `yaml:"caption" hash:"new" doc:"empty for caption, text, title"`
	Question string `yaml:"question" hash:"new" doc:"empty for question"`
	Answer   string `yaml:"answer" hash:"new" doc:"empty for answer, answers"`
	Split    string `yaml:"split" hash:"new" doc:"empty for split"`
}

// Expect is how large a data set should be.
type Expect struct {
	Images Count `yaml:"images" in:"[0,)" doc:"number of images; 0 for unknown"`
	Texts  Count `yaml:"texts" in:"[0,)" doc:"number of captions or questions; 0 for unknown"`
	Within Share `yaml:"within" in:"[0,1]" doc:"how far the numbers may be off: web images disappear"`
}

// Mix says how data sets share an epoch and with it the batches.
type Mix struct {
	By        string `yaml:"by" hash:"new=images" oneof:"images|rows|weights|blip1" doc:"in proportion to what"`
	EpochRows Count  `yaml:"epoch_rows" hash:"new" in:"[0,)" doc:"length of an epoch; 0: until a data set is used up"`
}

// checkSources holds the rules between the keys of data sets.
func checkSources(list string, sources []DataSource, by string, c *Checker) {
	for i, s := range sources {
		key := func(name string) string { return fmt.Sprintf("%s[%d].%s", list, i, name) }
		switch {
		case s.Annotations == "" && s.Shards == "":
			c.Required(key("annotations"), "annotation file of any known format, or shards")
		case s.Annotations != "" && s.Shards != "":
			c.Failf([]string{key("shards"), key("annotations")}, "a data set has either annotations or shards")
		}
		if s.Shards == "" {
			checkShardKeys(s, key, c)
		}
		if s.Weight != 0 && by != "weights" {
			c.Failf([]string{key("weight"), "data.mix.by"}, "weights are used with data.mix.by weights alone, not %s", by)
		}
		if s.Weight == 0 && by == "weights" {
			c.Required(key("weight"), "data.mix.by is weights")
		}
		if s.Share != 0 && by != "blip1" {
			c.Failf([]string{key("share"), "data.mix.by"}, "shares are used with data.mix.by blip1 alone, not %s", by)
		}
	}
}

// checkShardKeys refuses what only shards have.
func checkShardKeys(s DataSource, key func(string) string, c *Checker) {
	for _, k := range []struct {
		name string
		set  bool
	}{{"top_k", s.TopK != 0}, {"index", s.Index != ""}, {"shuffle_buffer", s.Buffer != 0}, {"cache", s.Cache != ""},
		{"cache_gb", s.CacheGB != 0}} {
		if k.set {
			c.Failf([]string{key(k.name), key("shards")}, "%s is for shards; this data set has none", k.name)
		}
	}
}

func checkMix(d Data, c *Checker) {
	if d.Mix.EpochRows > 0 && (d.Mix.By == "rows" || d.Mix.By == "blip1") {
		c.Failf([]string{"data.mix.epoch_rows", "data.mix.by"}, "with data.mix.by %s the data sets make an epoch as long "+
			"as they are", d.Mix.By)
	}
}
