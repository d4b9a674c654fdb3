// Package shard reads and writes webdataset shards: tar files in which members with the same key are one sample
// (spec/data.md §3).
//
// A local tar is indexed once: the index says where each sample's picture and captions lie, so that the shards are a
// dataset.Source with random access. Packed shards (.tar.gz) and shards elsewhere are a dataset.Stream: read in order,
// in an order of shards and samples that is a function of the seed. A shard elsewhere whose index lies beside it is
// read like a local one, by ranges.
package shard
