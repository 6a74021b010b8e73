// The runner of the list in Go. Reads calls, a line of JSON each; answers with a line each.
// `runner ADDRESS`
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"log"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	coalmine "coalmine/clients/go"
	"coalmine/clients/go/inference"
)

type told map[string]any

type stub = inference.GRPCInferenceServiceClient

var calls = map[string]func(stub, call) told{
	"infer": infer, "load": load, "stream": stream, "ready": ready, "metadata": modelMetadata,
	"server_ready": serverReady, "server_metadata": serverMetadata,
}

func main() {
	channel, err := coalmine.Connect(os.Args[1], coalmine.Security{})
	if err != nil {
		log.Fatal(err)
	}
	defer channel.Close()
	service := inference.NewGRPCInferenceServiceClient(channel)
	lines := bufio.NewReader(os.Stdin)
	for {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF {
			return
		}
		var asked call
		if err := json.Unmarshal(line, &asked); err != nil {
			log.Fatal(err)
		}
		say(calls[asked.Call](service, asked))
	}
}

func say(answer told) {
	if err := json.NewEncoder(os.Stdout).Encode(answer); err != nil {
		log.Fatal(err)
	}
}

func infer(service stub, asked call) told {
	ctx, cancel := contextOf(asked)
	defer cancel()
	if asked.CancelMs > 0 {
		time.AfterFunc(time.Duration(asked.CancelMs)*time.Millisecond, cancel)
	}
	var trailer metadata.MD
	options := []grpc.CallOption{grpc.Trailer(&trailer)}
	if asked.Gzip {
		options = append(options, grpc.UseCompressor(gzip.Name))
	}
	answer, err := service.ModelInfer(ctx, asked.request(), options...)
	if err != nil {
		return ended(told{}, err, trailer)
	}
	return ended(answerOf(answer), nil, trailer)
}

func contextOf(asked call) (context.Context, context.CancelFunc) {
	ctx := metadata.NewOutgoingContext(context.Background(), metadata.New(asked.Metadata))
	if asked.DeadlineMs > 0 {
		return context.WithTimeout(ctx, time.Duration(asked.DeadlineMs)*time.Millisecond)
	}
	return context.WithCancel(ctx)
}

func stream(service stub, asked call) told {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	answers := []told{}
	streamed, err := service.ModelStreamInfer(ctx)
	if err != nil {
		return ended(told{"answers": answers}, err, nil)
	}
	for _, each := range asked.Requests {
		if err := streamed.Send(each.request()); err != nil {
			break // Recv says why
		}
	}
	_ = streamed.CloseSend() // so does it
	for {
		message, err := streamed.Recv()
		if err == io.EOF {
			return ended(told{"answers": answers}, nil, streamed.Trailer())
		}
		if err != nil {
			return ended(told{"answers": answers}, err, streamed.Trailer())
		}
		if message.ErrorMessage != "" {
			answers = append(answers, told{"error": message.ErrorMessage})
		} else {
			answers = append(answers, told{"id": message.InferResponse.Id})
		}
	}
}

func load(service stub, asked call) told {
	over := time.Now().Add(time.Duration(asked.Seconds * float64(time.Second)))
	statuses := map[string]int{infer(service, asked)["status"].(string): 1}
	say(told{"loading": true})
	var lock sync.Mutex
	var callers sync.WaitGroup
	for range asked.Callers {
		callers.Go(func() {
			for time.Now().Before(over) {
				status := infer(service, asked)["status"].(string)
				lock.Lock()
				statuses[status]++
				lock.Unlock()
			}
		})
	}
	callers.Wait()
	return told{"statuses": statuses}
}

func ready(service stub, asked call) told {
	var trailer metadata.MD
	request := &inference.ModelReadyRequest{Name: asked.Model}
	answer, err := service.ModelReady(context.Background(), request, grpc.Trailer(&trailer))
	return ended(told{"ready": answer.GetReady()}, err, trailer)
}

func serverReady(service stub, _ call) told {
	var trailer metadata.MD
	request := &inference.ServerReadyRequest{}
	answer, err := service.ServerReady(context.Background(), request, grpc.Trailer(&trailer))
	return ended(told{"ready": answer.GetReady()}, err, trailer)
}

func serverMetadata(service stub, _ call) told {
	var trailer metadata.MD
	request := &inference.ServerMetadataRequest{}
	answer, err := service.ServerMetadata(context.Background(), request, grpc.Trailer(&trailer))
	return ended(told{"server": answer.GetName()}, err, trailer)
}

func modelMetadata(service stub, asked call) told {
	var trailer metadata.MD
	request := &inference.ModelMetadataRequest{Name: asked.Model}
	answer, err := service.ModelMetadata(context.Background(), request, grpc.Trailer(&trailer))
	said := told{
		"model": answer.GetName(), "inputs": tensorsOf(answer.GetInputs()),
		"outputs": tensorsOf(answer.GetOutputs()),
	}
	return ended(said, err, trailer)
}

func tensorsOf(tensors []*inference.ModelMetadataResponse_TensorMetadata) [][]any {
	all := [][]any{}
	for _, each := range tensors {
		all = append(all, []any{each.Name, each.Datatype, each.Shape})
	}
	return all
}

// ended adds how a call ended to what its answer said.
func ended(answer told, err error, trailer metadata.MD) told {
	said := status.Convert(err)
	answer["status"] = names[said.Code()]
	answer["message"] = said.Message()
	answer["origin"] = coalmine.Origin(trailer)
	answer["variant"] = coalmine.Variant(trailer)
	return answer
}

// As the protocol spells them.
var names = map[codes.Code]string{
	codes.OK: "OK", codes.Canceled: "CANCELLED", codes.Unknown: "UNKNOWN",
	codes.InvalidArgument: "INVALID_ARGUMENT", codes.DeadlineExceeded: "DEADLINE_EXCEEDED",
	codes.NotFound: "NOT_FOUND", codes.ResourceExhausted: "RESOURCE_EXHAUSTED",
	codes.Internal: "INTERNAL", codes.Unavailable: "UNAVAILABLE",
	codes.Unimplemented: "UNIMPLEMENTED",
}
