package shard

import (
	"bytes"
	"context"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"blip2/pkg/storage"
)

// inBucket puts files into a bucket of an S3 server that answers every third request with an error, and returns the
// options that lead there.
func inBucket(t *testing.T, files map[string][]byte) string {
	t.Helper()
	t.Setenv("AWS_ACCESS_KEY_ID", "test")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "test")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	back := s3mem.New()
	if err := back.CreateBucket("data"); err != nil {
		t.Fatal(err)
	}
	for name, data := range files {
		if _, err := back.PutObject("data", "web/"+name, nil, bytes.NewReader(data), int64(len(data)), nil); err != nil {
			t.Fatal(err)
		}
	}
	fake := gofakes3.New(back).Server()
	var n atomic.Int64
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1)%3 == 0 {
			http.Error(w, "", http.StatusServiceUnavailable)
			return
		}
		fake.ServeHTTP(w, r)
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // connections that are given up are no news
	server.Start()
	t.Cleanup(server.Close)
	return "?region=us-east-1&use_path_style=true&endpoint=" + server.URL
}

// Shards in a bucket give what the same shards on a disk give: in order without their indexes, anywhere with them.
func TestBucket(t *testing.T) {
	shards := shardsOf(t, 10, 3, 12)
	dir := inFolder(t, shards)
	never := small()
	never.NoIndex = true
	want := sequence(t, openStreams(t, never, filepath.Join(dir, "*.tar")), 1, 60)
	options := inBucket(t, shards)
	patient := small()
	patient.Store = storage.New(storage.Options{Tries: 30, Wait: testWait})
	defer patient.Store.Close()
	for _, pattern := range []string{"s3://data/web/", "s3://data/web/*.tar", "s3://data/web/s{000..002}.tar"} {
		got := sequence(t, openStreams(t, patient, pattern+options), 1, 60)
		if !slices.Equal(got, want) {
			t.Errorf("%s: another order", pattern)
		}
	}
	openSource(t, Options{}, filepath.Join(dir, "*.tar"))
	all := maps.Clone(shards)
	for name := range shards {
		data, err := os.ReadFile(filepath.Join(dir, name+IndexSuffix))
		if err != nil {
			t.Fatal(err)
		}
		all[name+IndexSuffix] = data
	}
	x := openSource(t, Options{Store: patient.Store}, "s3://data/web/s*.tar"+inBucket(t, all))
	checkSource(t, x, 25)
	if strings.Contains(x.Name(), "region") {
		t.Errorf("the name shows the options: %s", x.Name())
	}
	if _, _, err := Open(context.Background(), Options{Store: testStore(t)}, "s3://data/none/*.tar"+options); err == nil {
		t.Error("a pattern that matches nothing is taken")
	}
}
