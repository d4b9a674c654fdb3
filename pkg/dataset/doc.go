// Package dataset reads image–text pairs and turns them into training batches: annotation files and image folders,
// decoding and resizing as Pillow does it, the augmentations and text processors of BLIP-2 (spec/data.md and
// spec/training.md §7), a sample order that is a function of (seed, epoch, index), and prefetching workers.
//
// Pictures are decoded by its packages jpeg and raster, sample for sample as Pillow decodes them; with the build tag
// turbojpeg JPEG goes to libjpeg-turbo where that is found.
//
// The package deals in plain slices and knows nothing of tensors on devices.
package dataset
