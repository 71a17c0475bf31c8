package s3store

import (
	"context"
	"errors"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/chkpin/chkpin/blobstore"
)

var _ blobstore.RuleReader = (*Store)(nil)

// Versioned implements [blobstore.RuleReader] with GetBucketVersioning, which
// needs s3:GetBucketVersioning.
func (s *Store) Versioned(ctx context.Context, u blobstore.URI) (on bool, err error) {
	err = s.call(ctx, "read versioning of", u, func(c *s3.Client) error {
		out, err := c.GetBucketVersioning(ctx, &s3.GetBucketVersioningInput{Bucket: bucket(u)})
		if err == nil {
			on = out.Status == types.BucketVersioningStatusEnabled
		}
		return unsupported(err)
	})
	return on, err
}

// LifecycleRules implements [blobstore.RuleReader] with
// GetBucketLifecycleConfiguration, which needs s3:GetLifecycleConfiguration.
func (s *Store) LifecycleRules(ctx context.Context, dir blobstore.URI) (rules []blobstore.LifecycleRule, err error) {
	err = s.call(ctx, "read lifecycle of", dir, func(c *s3.Client) error {
		out, err := c.GetBucketLifecycleConfiguration(ctx, &s3.GetBucketLifecycleConfigurationInput{Bucket: bucket(dir)})
		if codeOf(err) == "NoSuchLifecycleConfiguration" {
			return nil
		}
		if err != nil {
			return unsupported(err)
		}
		rules = nil
		for _, r := range out.Rules {
			if rule := lifecycleRule(r); r.Status == types.ExpirationStatusEnabled && rule.Touches(dir) {
				rules = append(rules, rule)
			}
		}
		return nil
	})
	return rules, err
}

// unsupported is what services say that have no such rules.
func unsupported(err error) error {
	if codeOf(err) == "NotImplemented" {
		return errors.ErrUnsupported
	}
	return err
}

func lifecycleRule(r types.LifecycleRule) blobstore.LifecycleRule {
	//lint:ignore SA1019 old configurations still say it here
	prefix := aws.ToString(r.Prefix)
	rule := blobstore.LifecycleRule{
		ID:        aws.ToString(r.ID),
		Prefix:    prefix,
		ClearsOld: r.NoncurrentVersionExpiration != nil,
	}
	if f := r.Filter; f != nil {
		rule.Narrowed = f.Tag != nil || f.ObjectSizeGreaterThan != nil || f.ObjectSizeLessThan != nil
		if f.Prefix != nil {
			rule.Prefix = *f.Prefix
		}
		if and := f.And; and != nil {
			rule.Prefix = aws.ToString(and.Prefix)
			rule.Narrowed = len(and.Tags) > 0 || and.ObjectSizeGreaterThan != nil || and.ObjectSizeLessThan != nil
		}
	}
	if e := r.Expiration; e != nil {
		rule.DeletesAfter, rule.DeletesOn = int(aws.ToInt32(e.Days)), aws.ToTime(e.Date)
	}
	for _, t := range r.Transitions {
		// The classes from which an object must be restored before it can be read.
		switch t.StorageClass {
		case types.TransitionStorageClassGlacier, types.TransitionStorageClassDeepArchive:
			rule.Archive, rule.ArchivesAfter = string(t.StorageClass), int(aws.ToInt32(t.Days))
		}
	}
	return rule
}
