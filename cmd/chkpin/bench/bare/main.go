// Command bare is the least that a static Go program with the SDK of S3 does:
// it loads the default configuration and asks for one object's head. It is the
// yardstick of how fast chkpin starts.
//
//	bare BUCKET KEY
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: bare BUCKET KEY")
		os.Exit(80)
	}
	if err := head(context.Background(), os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintf(os.Stderr, "bare: %v\n", err)
		os.Exit(1)
	}
}

func head(ctx context.Context, bucket, key string) error {
	loaded, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return err
	}
	client := s3.NewFromConfig(loaded, func(o *s3.Options) { o.UsePathStyle = true })
	_, err = client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: aws.String(bucket), Key: aws.String(key)})
	return err
}
