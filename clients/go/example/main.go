// Asks a server or a router for a digit, once and then by a stream: `go run . ADDRESS [MODEL]`.
//
// COALMINE_CA, a PEM file, and COALMINE_TOKEN secure the channel. With OTEL_EXPORTER_OTLP_ENDPOINT
// set, its own spans are exported there; they continue TRACEPARENT.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	coalmine "coalmine/clients/go"
	"coalmine/clients/go/inference"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	stopTraces, err := startTraces(ctx)
	if err != nil {
		return err
	}
	defer stopTraces(context.WithoutCancel(ctx))
	security, err := securityOf(os.Getenv("COALMINE_CA"), os.Getenv("COALMINE_TOKEN"))
	if err != nil {
		return err
	}
	traced := grpc.WithStatsHandler(otelgrpc.NewClientHandler())
	target := argument(1, "127.0.0.1:9001")
	channel, err := coalmine.Connect(target, security, traced)
	if err != nil {
		return err
	}
	defer channel.Close()
	return ask(ctx, inference.NewGRPCInferenceServiceClient(channel), argument(2, "digits"))
}

// ask prints one line of JSON.
func ask(ctx context.Context, stub inference.GRPCInferenceServiceClient, model string) error {
	ctx, span := otel.Tracer("example").Start(asked(ctx), "ask for a digit")
	defer span.End()
	var trailer metadata.MD
	answer, err := stub.ModelInfer(ctx, request(model), grpc.Trailer(&trailer))
	if err != nil {
		return told(err, trailer)
	}
	logits, _, err := coalmine.Output[float32](answer, "logits")
	if err != nil {
		return err
	}
	streamed, err := stream(ctx, stub, model, 3)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"model": answer.ModelName, "version": answer.ModelVersion,
		"variant": coalmine.Variant(trailer), "logits": logits, "streamed": streamed,
		"trace": span.SpanContext().TraceID(),
	})
}

func request(model string) *inference.ModelInferRequest {
	pixels := make([]float32, 64)
	for at := range pixels {
		pixels[at] = 1
	}
	return coalmine.Request(model, coalmine.NewTensor("pixels", pixels, 1, 64))
}

// stream returns how many answers came, one for each request.
func stream(
	ctx context.Context, stub inference.GRPCInferenceServiceClient, model string, count int,
) (int, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream also where this returns early
	call, err := stub.ModelStreamInfer(ctx)
	if err != nil {
		return 0, err
	}
	for range count {
		if err := call.Send(request(model)); err != nil {
			break // Recv says why
		}
	}
	if err := call.CloseSend(); err != nil {
		return 0, err
	}
	// To its end: a stream that is left before counts as cancelled, and its span as an error.
	for answers := 0; ; answers++ {
		message, err := call.Recv()
		if errors.Is(err, io.EOF) {
			return answers, nil
		}
		if err != nil {
			return answers, told(err, call.Trailer())
		}
		if message.ErrorMessage != "" { // of one request; the stream goes on
			return answers, errors.New(message.ErrorMessage)
		}
	}
}

// told says whose error it is, and for which variant.
func told(err error, trailer metadata.MD) error {
	said := status.Convert(err)
	if said.Code() == codes.OK {
		return err
	}
	return fmt.Errorf("%s from the %s: %s", said.Code(), coalmine.Origin(trailer), said.Message())
}

func securityOf(ca, token string) (coalmine.Security, error) {
	security := coalmine.Security{Token: token}
	if ca == "" {
		return security, nil
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		return security, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return security, fmt.Errorf("%s has no certificate", ca)
	}
	security.TLS = &tls.Config{RootCAs: roots}
	return security, nil
}

func argument(at int, otherwise string) string {
	if len(os.Args) > at {
		return os.Args[at]
	}
	return otherwise
}
