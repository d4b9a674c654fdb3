//go:build !nogcs

package storage

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strconv"

	gcs "cloud.google.com/go/storage"
	"gocloud.dev/blob"
	"gocloud.dev/blob/gcsblob"
	"gocloud.dev/gcp"
	"google.golang.org/api/googleapi"
)

// gcsProvider reads Google Cloud Storage. Credentials are found as Google's tools do (GOOGLE_APPLICATION_CREDENTIALS,
// gcloud's login, the machine's account); ?anonymous=true reads public buckets. The client library doubles the size of
// the program: the build tag nogcs leaves it out.
func gcsProvider() provider {
	return provider{
		open: openGCS,
		pin: func(version string, as func(any) bool) {
			var object **gcs.ObjectHandle
			generation, err := strconv.ParseInt(version, 10, 64)
			if err == nil && as(&object) {
				*object = (*object).Generation(generation)
			}
		},
		version: func(a *blob.Attributes) string {
			var attrs gcs.ObjectAttrs
			if a.As(&attrs) {
				return strconv.FormatInt(attrs.Generation, 10)
			}
			return ""
		},
		answer: func(err error) (int, http.Header) {
			var ge *googleapi.Error
			if errors.As(err, &ge) {
				return ge.Code, ge.Header
			}
			return 0, nil
		},
	}
}

func openGCS(ctx context.Context, name string, q url.Values) (*blob.Bucket, error) {
	anonymous, err := takeBool(q, "anonymous")
	if err != nil {
		return nil, err
	}
	for key := range q {
		return nil, fmt.Errorf("a gs:// address has no option %.40q; known is anonymous", key)
	}
	client := gcp.NewAnonymousHTTPClient(gcp.DefaultTransport())
	if !anonymous && os.Getenv("STORAGE_EMULATOR_HOST") == "" {
		credentials, err := gcp.DefaultCredentials(ctx)
		if err != nil {
			return nil, fmt.Errorf("%w; put ?anonymous=true behind the address of a public bucket", err)
		}
		if client, err = gcp.NewHTTPClient(gcp.DefaultTransport(), gcp.CredentialsTokenSource(credentials)); err != nil {
			return nil, err
		}
	}
	b, err := gcsblob.OpenBucket(ctx, client, name, nil)
	if err != nil {
		return nil, err
	}
	var c *gcs.Client
	if b.As(&c) {
		c.SetRetry(gcs.WithPolicy(gcs.RetryNever))
	}
	return b, nil
}
