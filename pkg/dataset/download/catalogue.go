// Package download fetches the data sets that BLIP-2 is trained and evaluated on from where their makers publish them,
// with checksums where these are known, and takes up where an earlier call stopped.
package download

import (
	"fmt"
	"slices"
	"strings"
)

// Set is a data set that can be fetched.
type Set struct {
	Name    string `json:"name"`
	What    string `json:"what"`
	Licence string `json:"licence"`
	Home    string `json:"home"`
	Files   []File `json:"files"`
	Note    string `json:"note,omitempty"` // what must be got by hand, and how
}

// File is one file of a data set.
type File struct {
	URL  string `json:"url"`
	Path string `json:"path"` // under the folder of data, with slashes
	// Into is the folder under that of data into which the archive is unpacked; "" for files that are used as they are.
	Into string `json:"into,omitempty"`
	Size int64  `json:"size,omitempty"` // bytes, about; 0 for not known
	MD5  string `json:"md5,omitempty"`  // as published; "" for not published
}

// Addresses of those who host several of the files.
const (
	cocoHost  = "http://images.cocodataset.org/"
	lavisHost = "https://storage.googleapis.com/sfr-vision-language-research/"
	vqaHost   = "https://s3.amazonaws.com/cvmlp/vqa/mscoco/vqa/"
	okvqaHost = "https://okvqa.allenai.org/static/data/"
	gqaHost   = "https://downloads.cs.stanford.edu/nlp/data/gqa/"
	vgHost    = "https://cs.stanford.edu/people/rak248/VG_100K_2/"
)

// Licences that several of the sets have.
const (
	cocoLicence = "annotations CC BY 4.0 (COCO Consortium); pictures under the licences of their owners on Flickr"
	byLicence   = "CC BY 4.0"
)

// Sizes of the pictures of COCO.
const gigabyte = 1_000_000_000

func cocoImages(split, md5 string, size int64) File {
	return File{URL: cocoHost + "zips/" + split + ".zip", Path: "archives/coco/" + split + ".zip", Into: "coco/images",
		Size: size, MD5: md5}
}

func archive(host, name, into string) File {
	return File{URL: host + name, Path: "archives/" + strings.SplitN(into, "/", 2)[0] + "/" + name, Into: into}
}

// Sets are all data sets, sorted by name.
func Sets() []Set {
	train2014 := cocoImages("train2014", "0da8c0bd3d6becc4dcb32757491aca88", 13*gigabyte)
	val2014 := cocoImages("val2014", "a3d79f5ed8d289b7a7554ce06a5782b3", 6*gigabyte)
	karpathy := func(split, md5 string) File {
		return File{URL: lavisHost + "datasets/coco_karpathy_" + split + ".json",
			Path: "coco/coco_karpathy_" + split + ".json", MD5: md5}
	}
	flickr := func(split string) File {
		return File{URL: lavisHost + "datasets/flickr30k_" + split + ".json", Path: "flickr30k/flickr30k_" + split + ".json"}
	}
	return []Set{
		{Name: "ccsbu", What: "CC3M, CC12M and SBU with the captions of CapFilt with ViT-L: addresses and captions",
			Licence: "captions BSD-3-Clause (BLIP); pictures under the terms of their owners", Home: "https://github.com/salesforce/BLIP",
			Files: []File{{URL: lavisHost + "BLIP/datasets/ccs_synthetic_filtered_large.json",
				Path: "ccsbu/ccs_synthetic_filtered_large.json"}},
			Note: "the file holds addresses: fetch the pictures with img2dataset (input format json, output format " +
				"webdataset) and train on the shards that it writes"},
		{Name: "coco", What: "COCO 2014 pictures with the captions of the Karpathy split", Licence: cocoLicence,
			Home: "https://cocodataset.org",
			Files: []File{karpathy("train", "aa31ac474cf6250ebb81d18348a07ed8"),
				karpathy("val", "b273847456ef5580e33713b1f7de52a0"), karpathy("test", "3ff34b0ef2db02d01c37399f6a2a6cd1"),
				{URL: lavisHost + "datasets/coco_karpathy_val_gt.json", Path: "coco/coco_karpathy_val_gt.json"},
				{URL: lavisHost + "datasets/coco_karpathy_test_gt.json", Path: "coco/coco_karpathy_test_gt.json"},
				train2014, val2014}},
		{Name: "flickr30k", What: "Flickr30K captions: train, val and test", Home: "https://shannon.cs.illinois.edu/DenotationGraph/",
			Licence: "pictures under the terms of Flickr, for non-commercial research and education",
			Files:   []File{flickr("train"), flickr("val"), flickr("test")},
			Note: "the pictures are given out on request by their makers at https://shannon.cs.illinois.edu/DenotationGraph/: " +
				"unpack them into flickr30k/images"},
		{Name: "gqa", What: "GQA questions and pictures", Licence: byLicence,
			Home: "https://cs.stanford.edu/people/dorarad/gqa/",
			Files: []File{archive(gqaHost, "questions1.2.zip", "gqa"),
				{URL: gqaHost + "images.zip", Path: "archives/gqa/images.zip", Into: "gqa", Size: 20 * gigabyte}}},
		{Name: "laion", What: "LAION, the 115 million of BLIP, with the captions of CapFilt with ViT-L: addresses and captions",
			Licence: "captions BSD-3-Clause (BLIP); pictures under the terms of their owners", Home: "https://github.com/salesforce/BLIP",
			Files: []File{{URL: lavisHost + "BLIP/datasets/laion_synthetic_filtered_large.json",
				Path: "laion/laion_synthetic_filtered_large.json"}},
			Note: "the file holds addresses: fetch the pictures with img2dataset, as for ccsbu"},
		{Name: "nocaps", What: "NoCaps validation: captions with domains, and the list of its pictures", Licence: "CC BY 2.0",
			Home: "https://nocaps.org",
			Files: []File{{URL: "https://nocaps.s3.amazonaws.com/nocaps_val_4500_captions.json",
				Path: "nocaps/nocaps_val_4500_captions.json"},
				{URL: "https://s3.amazonaws.com/nocaps/nocaps_val_image_info.json", Path: "nocaps/nocaps_val_image_info.json"}},
			Note: "every picture's address is its coco_url in nocaps_val_4500_captions.json: fetch them into nocaps/images"},
		{Name: "okvqa", What: "OK-VQA questions and answers; its pictures are those of coco", Licence: byLicence,
			Home: "https://okvqa.allenai.org",
			Files: []File{archive(okvqaHost, "OpenEnded_mscoco_train2014_questions.json.zip", "okvqa"),
				archive(okvqaHost, "OpenEnded_mscoco_val2014_questions.json.zip", "okvqa"),
				archive(okvqaHost, "mscoco_train2014_annotations.json.zip", "okvqa"),
				archive(okvqaHost, "mscoco_val2014_annotations.json.zip", "okvqa")}},
		{Name: "vg", What: "Visual Genome pictures and the captions that LAVIS made of its regions", Licence: byLicence,
			Home: "https://homes.cs.washington.edu/~ranjay/visualgenome/",
			Files: []File{{URL: lavisHost + "LAVIS/datasets/visual_genome/vg_caption.json", Path: "vg/vg_caption.json",
				MD5: "941425b651f50cdb1a6f0673eaab6260"},
				{URL: vgHost + "images.zip", Path: "archives/vg/images.zip", Into: "vg/images", Size: 9 * gigabyte},
				{URL: vgHost + "images2.zip", Path: "archives/vg/images2.zip", Into: "vg/images", Size: 5 * gigabyte}}},
		{Name: "vqav2", What: "VQA v2 questions and answers, and COCO's test pictures; the others are those of coco",
			Licence: "questions and answers CC BY 4.0; pictures as in coco", Home: "https://visualqa.org",
			Files: []File{archive(vqaHost, "v2_Questions_Train_mscoco.zip", "vqav2"),
				archive(vqaHost, "v2_Questions_Val_mscoco.zip", "vqav2"), archive(vqaHost, "v2_Questions_Test_mscoco.zip", "vqav2"),
				archive(vqaHost, "v2_Annotations_Train_mscoco.zip", "vqav2"),
				archive(vqaHost, "v2_Annotations_Val_mscoco.zip", "vqav2"), cocoImages("test2015", "", 12*gigabyte)}},
	}
}

// Find returns the sets of the given names.
func Find(names []string) ([]Set, error) {
	all := Sets()
	var known []string
	for _, s := range all {
		known = append(known, s.Name)
	}
	var out []Set
	for _, name := range names {
		i := slices.IndexFunc(all, func(s Set) bool { return s.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("unknown data set %q; known are %s", name, strings.Join(known, ", "))
		}
		out = append(out, all[i])
	}
	return out, nil
}
