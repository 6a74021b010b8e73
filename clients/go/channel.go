// Package coalmine calls a coalmine server or router: a channel as a service in production sets it
// up, tensors from slices and back, and what the answer's metadata says. The calls themselves are
// those of the generated package inference.
package coalmine

import (
	"context"
	"crypto/tls"
	_ "embed"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/health" // the service config asks for health checks
	"google.golang.org/grpc/keepalive"
)

// Servers and routers take messages up to this size, unless they are told otherwise.
const messageBytesMax = 64 << 20

// A deadline where the context has none, retries of UNAVAILABLE, round_robin, health checks.
//
//go:embed service_config.json
var serviceConfig string

// Security says how the channel is protected. The zero value is an open, plaintext channel.
type Security struct {
	TLS   *tls.Config // nil: plaintext
	Token string      // shown with every call; needs TLS
}

// Connect returns a channel to target, such as "dns:///coalmine.prod:9001". It connects as it is
// used, and again when a connection is lost. More options, such as an instrumentation, go last.
func Connect(target string, security Security, more ...grpc.DialOption) (*grpc.ClientConn, error) {
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(transport(security.TLS)),
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time:                10 * time.Second,
			Timeout:             5 * time.Second,
			PermitWithoutStream: true,
		}),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(messageBytesMax),
			grpc.MaxCallSendMsgSize(messageBytesMax),
		),
	}
	if security.Token != "" {
		options = append(options, grpc.WithPerRPCCredentials(bearer(security.Token)))
	}
	return grpc.NewClient(target, append(options, more...)...)
}

func transport(config *tls.Config) credentials.TransportCredentials {
	if config == nil {
		return insecure.NewCredentials()
	}
	return credentials.NewTLS(config)
}

type bearer string

func (token bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(token)}, nil
}

// A token that travels in the clear is everybody's: gRPC refuses it without TLS.
func (bearer) RequireTransportSecurity() bool { return true }
