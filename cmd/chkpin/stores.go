package main

import (
	"cmp"
	"fmt"
	"log/slog"
	"net/url"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/blobstore/azstore"
	"github.com/chkpin/chkpin/blobstore/s3store"
	"github.com/chkpin/chkpin/cmd/chkpin/flinkconf"
)

// storeFlags say how to reach the stores. Credentials have no flags: they come
// from the SDK's chain or from Flink's configuration.
type storeFlags struct {
	FlinkConf string `group:"Reaching storage:" type:"path" placeholder:"PATH" env:"CHKPIN_FLINK_CONF" help:"Flink's configuration, a file or its folder: how the cluster reaches S3 and Azure, where its JobManager and checkpoints are."`

	S3Endpoint     string `name:"s3-endpoint" placeholder:"URL" env:"CHKPIN_S3_ENDPOINT" help:"Another service than AWS."`
	S3Region       string `name:"s3-region" placeholder:"NAME" env:"CHKPIN_S3_REGION" help:"Where the SDK's chain does not tell it."`
	S3PathStyle    bool   `name:"s3-path-style" env:"CHKPIN_S3_PATH_STYLE" help:"Bucket in the path instead of the host name."`
	S3Profile      string `name:"s3-profile" placeholder:"NAME" env:"CHKPIN_S3_PROFILE" help:"Of the shared configuration files."`
	S3Role         string `name:"s3-role" placeholder:"ARN" env:"CHKPIN_S3_ROLE" help:"Role to assume."`
	S3Anonymous    bool   `name:"s3-anonymous" env:"CHKPIN_S3_ANONYMOUS" help:"Send no credentials."`
	S3Encryption   string `name:"s3-encryption" enum:",AES256,aws:kms,aws:kms:dsse" default:"" placeholder:"KIND" env:"CHKPIN_S3_ENCRYPTION" help:"Server-side encryption of what is written: AES256, aws:kms or aws:kms:dsse."`
	S3KMSKey       string `name:"s3-kms-key" placeholder:"KEY" env:"CHKPIN_S3_KMS_KEY" help:"For aws:kms."`
	S3RequestPayer bool   `name:"s3-request-payer" env:"CHKPIN_S3_REQUEST_PAYER" help:"Pay for requests to requester-pays buckets."`
}

// azureFlags say how to reach Azure Blob Storage. Its SDK's chain has no account
// keys; those come from AZURE_STORAGE_… variables or from Flink's configuration.
type azureFlags struct {
	AzureEndpoint  string `placeholder:"URL" env:"CHKPIN_AZURE_ENDPOINT" help:"Another service than Azure, without the account's name: http://azurite:10000."`
	AzureAnonymous bool   `env:"CHKPIN_AZURE_ANONYMOUS" help:"Send no credentials."`
}

// Validate: an endpoint without its scheme is a mistake that the SDKs tell badly.
func (c *cli) Validate() error {
	for _, f := range [][2]string{{"--s3-endpoint", c.S3Endpoint}, {"--azure-endpoint", c.AzureEndpoint}} {
		flag, endpoint := f[0], f[1]
		if endpoint == "" {
			continue
		}
		if u, err := url.Parse(endpoint); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" {
			return fmt.Errorf("%s must be a URL such as http://storage:9000", flag)
		}
	}
	return nil
}

// flinkConf reads the cluster's configuration, if it was given.
func (f storeFlags) flinkConf() (flinkconf.Conf, error) {
	if f.FlinkConf == "" {
		return flinkconf.Conf{}, nil
	}
	conf, err := flinkconf.Load(f.FlinkConf)
	if err != nil {
		err = usagef("--flink-conf takes the file or folder that the Flink cluster is started with", "%v", err)
	}
	return conf, err
}

// open returns the store of everything that this binary can reach. What is not
// used is not set up. Flags win over the cluster's configuration.
func (c *cli) open(conf flinkconf.Conf, log *slog.Logger) blobstore.Store {
	f, s3 := c.storeFlags, conf.S3()
	accounts := map[string]azstore.Access{}
	for name, key := range conf.AzureKeys() {
		accounts[name] = azstore.Access{Key: key}
	}
	return blobstore.Mux{
		blobstore.FamilyFile: &blobstore.File{Logger: log},
		blobstore.FamilyS3: s3store.New(s3store.Config{
			Endpoint:     cmp.Or(f.S3Endpoint, s3.Endpoint),
			Region:       cmp.Or(f.S3Region, s3.Region),
			PathStyle:    f.S3PathStyle || s3.PathStyle,
			Profile:      f.S3Profile,
			Role:         f.S3Role,
			Anonymous:    f.S3Anonymous,
			AccessKey:    s3.AccessKey,
			SecretKey:    s3.SecretKey,
			SessionToken: s3.SessionToken,
			Encryption:   f.S3Encryption,
			KMSKey:       f.S3KMSKey,
			RequestPayer: f.S3RequestPayer,
			Logger:       log,
		}),
		blobstore.FamilyAzure: azstore.New(azstore.Config{
			Endpoint:  c.AzureEndpoint,
			Anonymous: c.AzureAnonymous,
			Accounts:  accounts,
			Logger:    log,
		}),
	}
}
