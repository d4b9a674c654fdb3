package report

import (
	"fmt"
	"html/template"
	"math"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"blip2/pkg/runlog"
)

// page is what the template shows.
type page struct {
	CSS       template.CSS
	JS        template.JS
	Name      string
	Lead      string // the run in one sentence
	Status    string
	StatusOK  bool
	Notices   []string
	Facts     []fact
	Tables    []scoreTable
	Captions  []captionTable
	Charts    []chart
	Smoothed  bool
	Galleries []gallery
	Matches   bool // the galleries have best matches
	Command   string
	Config    string
}

// fact is a line of the list beside the title.
type fact struct{ Name, Value string }

// gallery is the part of the gallery with pictures of one set.
type gallery struct {
	Title string
	Right string // "5 of 6 best matches are right"
	Cards []card
}

// card is one picture.
type card struct {
	runlog.GalleryItem
	Picture  template.URL // empty if the file is missing
	Prob     string       // of the best match
	HasMatch bool
}

// settings are the few keys of config.yaml that the page words; everything else is shown as it is.
type settings struct {
	Vision struct {
		Arch      string `yaml:"arch"`
		Preset    string `yaml:"preset"`
		ImageSize int    `yaml:"image_size"`
		PatchSize int    `yaml:"patch_size"`
		Width     int    `yaml:"width"`
		Layers    int    `yaml:"layers"`
		Freeze    bool   `yaml:"freeze"`
	} `yaml:"vision"`
	QFormer struct {
		Preset string `yaml:"preset"`
		Hidden int    `yaml:"hidden"`
		Layers int    `yaml:"layers"`
		Tokens int    `yaml:"query_tokens"`
	} `yaml:"qformer"`
	Train struct {
		Steps     int `yaml:"steps"`
		BatchSize int `yaml:"batch_size"`
	} `yaml:"train"`
}

// newPage words a run.
func newPage(r *run) page {
	var set settings
	if err := yaml.Unmarshal(r.config, &set); err != nil {
		r.notices = append(r.notices, runlog.ConfigFile+" cannot be read: "+err.Error())
	}
	p := page{CSS: template.CSS(pageCSS), JS: template.JS(pageJS), Name: r.name, Notices: r.notices,
		Config: strings.TrimSpace(string(r.config))}
	p.Status, p.StatusOK = "not finished", false
	if r.summary != nil {
		p.Command = r.summary.Command
		if r.summary.Status != "" {
			p.Status, p.StatusOK = r.summary.Status, r.summary.Status != runlog.StatusInterrupted &&
				r.summary.Status != runlog.StatusFailed
		}
	}
	p.Facts = facts(r, set)
	p.Lead = lead(r, set)
	p.Tables = scoreTables(r.summary)
	p.Captions = captionTables(r.summary)
	if r.summary != nil && len(p.Tables)+len(p.Captions) == 0 {
		p.Notices = append(p.Notices, "Nothing was evaluated in this run.")
	}
	p.Charts = charts(r, set)
	for _, c := range p.Charts {
		p.Smoothed = p.Smoothed || c.Raw != ""
	}
	if len(r.rows) == 1 {
		p.Notices = append(p.Notices, "Only one interval was logged: curves need two.")
	}
	p.Galleries = galleries(r)
	for _, g := range p.Galleries {
		p.Matches = p.Matches || g.Right != ""
	}
	return p
}

// lead says in one sentence what was trained, on what, for how long.
func lead(r *run, set settings) string {
	if r.summary == nil {
		if len(r.rows) == 0 {
			return "Nothing was logged yet."
		}
		last := r.rows[len(r.rows)-1].Step
		if set.Train.Steps > 0 {
			return fmt.Sprintf("Logged up to step %d of %d.", last, set.Train.Steps)
		}
		return fmt.Sprintf("Logged up to step %d.", last)
	}
	s := r.summary
	text := plural(s.Steps, "step")
	if s.TrainImages > 0 {
		text += " on " + plural(s.TrainImages, "picture") + " with " + plural(s.TrainTexts, "caption")
	}
	if s.Seconds > 0 {
		text += " in " + duration(float64(s.Seconds))
	}
	return text + backendText(s.Backend) + "."
}

func backendText(backend string) string {
	switch backend {
	case "":
		return ""
	case "go":
		return " with the Go backend"
	case "xla:cpu":
		return " with XLA on the CPU"
	case "xla:cuda":
		return " with XLA on CUDA"
	}
	return " with the backend " + backend
}

// facts lists what is known about a run; what is not known is left out.
func facts(r *run, set settings) []fact {
	var out []fact
	add := func(name, value string) {
		if value != "" {
			out = append(out, fact{name, value})
		}
	}
	s := runlog.Summary{}
	if r.summary != nil {
		s = *r.summary
	}
	started := s.Started
	if started.IsZero() && len(r.rows) > 0 {
		started = r.rows[0].Time
	}
	if !started.IsZero() {
		add("Started", started.UTC().Format("2 January 2006, 15:04 UTC"))
	}
	add("Backend", join(" · ", s.Backend, s.Device, s.DType))
	add("Image encoder", encoderText(set))
	add("Q-Former", qformerText(set))
	if s.Parameters > 0 {
		add("Parameters", fmt.Sprintf("%s, %s trained", million(s.Parameters), million(s.TrainableParameters)))
	}
	add("Steps", stepsText(s, set))
	if s.ImgPerS > 0 {
		add("Speed", number(float64(s.ImgPerS))+" pictures/s"+mfuText(s.MFU))
	}
	if s.Seconds > 0 {
		add("Time", duration(float64(s.Seconds))+compileText(s.CompileSeconds))
	}
	if r.summary != nil {
		add("Final loss", number(float64(s.Loss)))
	}
	if s.BadSamples > 0 {
		add("Bad samples", strconv.Itoa(s.BadSamples)+" replaced")
	}
	if s.Version != "" {
		add("Program", join(" ", "blip2", s.Version, s.Commit))
	}
	return out
}

func encoderText(set settings) string {
	v := set.Vision
	if v.Layers == 0 {
		return v.Preset
	}
	text := fmt.Sprintf("%s ViT, %d × %d, %d px in patches of %d",
		strings.ToUpper(v.Arch), v.Layers, v.Width, v.ImageSize, v.PatchSize)
	if v.Freeze {
		return text + ", frozen"
	}
	return text + ", trained"
}

func qformerText(set settings) string {
	q := set.QFormer
	if q.Layers == 0 {
		return q.Preset
	}
	return fmt.Sprintf("%d × %d, %d query tokens", q.Layers, q.Hidden, q.Tokens)
}

func stepsText(s runlog.Summary, set settings) string {
	if s.Steps == 0 {
		return ""
	}
	text := strconv.Itoa(s.Steps)
	if set.Train.Steps > s.Steps {
		text += " of " + strconv.Itoa(set.Train.Steps)
	}
	if s.BatchSize > 0 {
		text += " × " + plural(s.BatchSize, "pair")
	}
	if s.Epochs > 0 {
		text += fmt.Sprintf(" (%s epochs)", trimZeros(strconv.FormatFloat(float64(s.Epochs), 'f', 1, 64)))
	}
	return text
}

func mfuText(mfu runlog.Float) string {
	if !(mfu > 0) {
		return ""
	}
	return fmt.Sprintf(" (%.1f %% of the peak FLOP/s)", 100*float64(mfu))
}

func compileText(seconds runlog.Float) string {
	if !(seconds >= 0.5) {
		return ""
	}
	return ", " + duration(float64(seconds)) + " of it compiling"
}

// charts draws every measurement that the run has.
func charts(r *run, set settings) []chart {
	batch := float64(set.Train.BatchSize)
	if r.summary != nil && r.summary.BatchSize > 0 {
		batch = float64(r.summary.BatchSize)
	}
	guess := math.Log(math.Max(batch, 1)) // cross-entropy of a uniform guess among the batch
	// One matched pair comes with two hard negatives: knowing only that costs the entropy of 1/3.
	const thirds = 0.6365
	specs := []chartSpec{
		{key: "loss", title: "Loss", note: "sum of the three terms", wide: true, smooth: true},
		{key: "loss_itc", title: "ITC", note: "image–text contrastive", smooth: true, guide: guess, guideLabel: "guessing"},
		{key: "loss_itm", title: "ITM", note: "image–text matching", smooth: true, guide: thirds, guideLabel: "guessing"},
		{key: "loss_itg", title: "ITG", note: "image-grounded text generation", smooth: true},
		{key: "lr", title: "Learning rate", zero: true},
		{key: "img_per_s", title: "Pictures per second", smooth: true, zero: true},
		{key: "grad_norm", title: "Gradient norm", smooth: true, zero: true},
		{key: "temp", title: "Temperature", note: "of ITC"},
	}
	var out []chart
	for _, spec := range specs {
		steps, values := series(r.rows, spec.key)
		if len(steps) < 2 {
			continue
		}
		if c, ok := newChart(spec, steps, values); ok {
			out = append(out, c)
		}
	}
	return out
}

// galleries sorts the pictures by their set, held-out pictures last as in the tables.
func galleries(r *run) []gallery {
	var out []gallery
	for _, split := range splits {
		g := gallery{Title: split.title + ", " + split.meaning}
		right, matched := 0, 0
		for _, item := range r.gallery.Items {
			if item.Split != split.key {
				continue
			}
			c := card{GalleryItem: item, Picture: r.pictures[item.Image], HasMatch: item.BestMatch != ""}
			if c.HasMatch {
				matched++
				c.Prob = probability(float64(item.BestMatchProb))
				if item.BestMatchCorrect {
					right++
				}
			}
			g.Cards = append(g.Cards, c)
		}
		if matched > 0 {
			g.Right = fmt.Sprintf("best match right for %d of %d", right, matched)
		}
		if len(g.Cards) > 0 {
			out = append(out, g)
		}
	}
	return out
}

// probability writes 0.873 as "87 %"; a share that rounds to all says that it is not quite.
func probability(p float64) string {
	switch {
	case math.IsNaN(p):
		return "not finite"
	case p > 0.99 && p < 1:
		return "> 99 %"
	case p < 0.01 && p > 0:
		return "< 1 %"
	}
	return fmt.Sprintf("%.0f %%", 100*p)
}

// million writes a count of parameters: 812 k, 3.2 M, 1.17 B.
func million(n int64) string {
	v := float64(n)
	switch {
	case v >= 1e9:
		return strconv.FormatFloat(v/1e9, 'f', 2, 64) + " B"
	case v >= 1e6:
		return strconv.FormatFloat(v/1e6, 'f', 1, 64) + " M"
	case v >= 1e3:
		return strconv.FormatFloat(v/1e3, 'f', 0, 64) + " k"
	}
	return strconv.FormatInt(n, 10)
}

// duration writes 48 s, 4 min 48 s or 2 h 5 min.
func duration(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	switch s := int(d.Round(time.Second) / time.Second); {
	case s < 10:
		return fmt.Sprintf("%.1f s", seconds)
	case s < 60:
		return fmt.Sprintf("%d s", s)
	case s < 3600:
		return fmt.Sprintf("%d min %d s", s/60, s%60)
	default:
		return fmt.Sprintf("%d h %d min", s/3600, s/60%60)
	}
}

// join joins the parts that are not empty.
func join(sep string, parts ...string) string {
	var out []string
	for _, p := range parts {
		if p != "" {
			out = append(out, p)
		}
	}
	return strings.Join(out, sep)
}
