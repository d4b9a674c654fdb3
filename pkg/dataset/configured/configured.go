// Package configured opens the data sets that a configuration names.
package configured

import (
	"context"
	"errors"
	"fmt"

	"blip2/pkg/config"
	"blip2/pkg/dataset"
)

// ShardOpener opens the shards of a data set: a Source where they can be read anywhere, a StreamSet where only in
// order.
type ShardOpener func(ctx context.Context, s config.DataSource) (dataset.Source, *dataset.StreamSet, error)

// Training is the data of a training.
type Training struct {
	Mixture *dataset.Mixture
	// Source has the pictures of all sources one after the other, for evaluation; nil if there are streams alone.
	Source dataset.Source
}

// Open opens the data sets listed under data.train and mixes them. shards may be nil where none are to be read.
func Open(ctx context.Context, d config.Data, shards ShardOpener) (*Training, error) {
	var parts []dataset.Part
	for i, s := range d.Train {
		part, err := One(ctx, fmt.Sprintf("data.train[%d]", i), s, shards)
		if err != nil {
			return nil, err
		}
		parts = append(parts, part)
	}
	return Mix(d, parts)
}

// Mix mixes the data sets listed under data.train, which are open.
func Mix(d config.Data, parts []dataset.Part) (*Training, error) {
	var sources []dataset.Source
	for i := range parts {
		if parts[i].Source != nil {
			sources = append(sources, parts[i].Source)
		}
		if parts[i].Unit == "" {
			parts[i].Unit = dataset.Unit(d.Unit)
		}
	}
	mix := dataset.Mix{By: dataset.MixBy(d.Mix.By), EpochRows: int64(d.Mix.EpochRows)}
	m, err := dataset.NewMixture(mix, parts...)
	if err != nil {
		return nil, fmt.Errorf("data.mix: %w", err)
	}
	t := &Training{Mixture: m}
	if len(sources) > 0 {
		t.Source, err = dataset.Concat(sources...)
	}
	return t, err
}

// Evaluation opens data sets, listed under a key of the configuration, one after the other as one.
func Evaluation(ctx context.Context, key string, list []config.DataSource, shards ShardOpener) (dataset.Source, error) {
	var sources []dataset.Source
	for i, s := range list {
		part, err := open(ctx, s, shards)
		if err == nil && part.Source == nil {
			err = errors.New("the shards can only be read in order; evaluation needs them on disk, or with an index")
		}
		if err != nil {
			return nil, fmt.Errorf("%s[%d]: %w", key, i, err)
		}
		sources = append(sources, part.Source)
	}
	return dataset.Concat(sources...)
}

// One opens a single data set, listed under a key of the configuration: either a Source or a StreamSet.
func One(ctx context.Context, key string, s config.DataSource, shards ShardOpener) (dataset.Part, error) {
	part, err := open(ctx, s, shards)
	if err != nil {
		return part, fmt.Errorf("%s: %w", key, err)
	}
	return part, nil
}

// open opens one data set.
func open(ctx context.Context, s config.DataSource, shards ShardOpener) (dataset.Part, error) {
	p := dataset.Part{Unit: dataset.Unit(s.Unit), Weight: s.Weight, Share: s.Share}
	if s.Shards == "" {
		src, err := dataset.OpenAnnotations(File(s))
		if err != nil {
			return p, err
		}
		p.Source = dataset.FirstTexts(src, s.MaxTexts)
		return p, nil
	}
	if shards == nil {
		return p, errors.New("shards cannot be read here; name annotations and images")
	}
	var err error
	if p.Source, p.Stream, err = shards(ctx, s); err != nil {
		return p, err
	}
	if p.Source != nil {
		p.Source = dataset.FirstTexts(p.Source, s.MaxTexts)
		return p, nil
	}
	p.Stream = p.Stream.FirstTexts(s.MaxTexts)
	if p.Stream.Pictures == 0 {
		p.Stream.Pictures = int64(s.Expect.Images)
	}
	return p, nil
}

// LoaderOptions are the choices of a loader that the section names; the caller adds the batch, its texts, the seed and
// the start.
func LoaderOptions(d config.Data) dataset.LoaderOptions {
	a := d.Augment
	return dataset.LoaderOptions{
		Answers: dataset.AnswerMode(d.Answers), Flip: a.Flip.Float(), EXIF: d.EXIF,
		Crop: dataset.Crop{Scale: a.CropScale, Ratio: a.CropRatio}, Truncated: dataset.Truncated(d.Truncated),
		Augment: dataset.RandAugment{Ops: a.RandAugment.Ops, Magnitude: a.RandAugment.Magnitude,
			Mode: dataset.AugmentMode(a.RandAugment.Mode)},
		Workers: d.Workers, Prefetch: d.Prefetch, MaxBadShare: d.MaxBadShare.Float(),
	}
}

// EvalOptions are the choices of an evaluation set that the section names; the caller adds sizes and texts.
func EvalOptions(d config.Data) dataset.EvalOptions {
	return dataset.EvalOptions{EXIF: d.EXIF, Truncated: dataset.Truncated(d.Truncated), Workers: d.Workers,
		MaxBadShare: d.MaxBadShare.Float()}
}

// File is the annotation file that a data set names.
func File(s config.DataSource) dataset.AnnotationFile {
	c := s.Columns
	return dataset.AnnotationFile{Annotations: s.Annotations, Questions: s.Questions, Images: s.Images, Split: s.Split,
		Name: s.Name, Bare: s.Bare, Format: dataset.Format(s.Format), ImageName: s.ImageName, Columns: dataset.Columns{
			Image: c.Image, Caption: c.Caption, Question: c.Question, Answer: c.Answer, Split: c.Split}}
}
