package storage

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	gcaws "gocloud.dev/aws"
	"gocloud.dev/blob"
	"gocloud.dev/blob/s3blob"
)

// s3Provider reads S3 and what speaks its language, such as MinIO, Ceph and R2. Credentials, region and endpoint are
// found as the AWS tools do (AWS_ACCESS_KEY_ID, ~/.aws, AWS_ENDPOINT_URL …) or are options of the URL; ?anonymous=true
// reads public buckets.
func s3Provider() provider {
	return provider{
		open: openS3,
		pin: func(version string, as func(any) bool) {
			var in *s3.GetObjectInput
			if as(&in) {
				in.IfMatch = &version
			}
		},
		version: func(a *blob.Attributes) string { return a.ETag },
		answer: func(err error) (int, http.Header) {
			var re *smithyhttp.ResponseError
			if errors.As(err, &re) && re.Response != nil {
				return re.HTTPStatusCode(), re.Response.Header
			}
			return 0, nil
		},
	}
}

func openS3(ctx context.Context, name string, q url.Values) (*blob.Bucket, error) {
	pathStyle, err1 := takeBool(q, "use_path_style", "s3ForcePathStyle")
	noTLS, err2 := takeBool(q, "disable_https")
	legacyList, err3 := takeBool(q, "legacy_list")
	anonymous, err4 := takeBool(q, "anonymous")
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return nil, err
	}
	config, err := gcaws.V2ConfigFromURLParams(ctx, q)
	if err != nil {
		return nil, err
	}
	if anonymous {
		config.Credentials = aws.AnonymousCredentials{}
	} else if _, err := config.Credentials.Retrieve(ctx); err != nil {
		return nil, fmt.Errorf("there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE, "+
			"or put ?anonymous=true behind the address of a public bucket (%w)", err)
	}
	config.Retryer = func() aws.Retryer { return aws.NopRetryer{} }
	client := s3.NewFromConfig(config, func(o *s3.Options) {
		o.UsePathStyle = pathStyle
		o.EndpointOptions.DisableHTTPS = noTLS
		o.DisableLogOutputChecksumValidationSkipped = true
	})
	return s3blob.OpenBucket(ctx, client, name, &s3blob.Options{UseLegacyList: legacyList})
}
