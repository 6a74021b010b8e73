package main

import (
	"encoding/hex"
	"fmt"
	"log"
	"strconv"

	coalmine "coalmine/clients/go"
	"coalmine/clients/go/inference"
)

// call is one of the list.
type call struct {
	Call       string
	Model      string
	Version    string
	ID         string
	Inputs     []input
	Outputs    []string
	Metadata   map[string]string
	Gzip       bool
	DeadlineMs int `json:"deadline_ms"`
	CancelMs   int `json:"cancel_ms"`
	Requests   []call
	Callers    int
	Seconds    float64
}

type input struct {
	Name     string
	Datatype string
	Shape    []int64
	Values   []string
	Typed    bool
}

func (asked call) request() *inference.ModelInferRequest {
	var tensors []coalmine.Tensor
	for _, each := range asked.Inputs {
		tensors = append(tensors, each.tensor())
	}
	request := coalmine.Request(asked.Model, tensors...)
	request.ModelVersion, request.Id = asked.Version, asked.ID
	for at, each := range asked.Inputs {
		if each.Typed {
			request.RawInputContents = nil
			request.Inputs[at].Contents = each.contents()
		}
	}
	for _, name := range asked.Outputs {
		output := &inference.ModelInferRequest_InferRequestedOutputTensor{Name: name}
		request.Outputs = append(request.Outputs, output)
	}
	return request
}

// ---------------------------------------------------------------- from text and back

func each[T any](values []string, read func(string) T) []T {
	all := make([]T, 0, len(values))
	for _, value := range values {
		all = append(all, read(value))
	}
	return all
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

func boolean(text string) bool   { return text == "true" }
func element(text string) []byte { return must(hex.DecodeString(text)) }

func signed[T int8 | int16 | int32 | int64](text string) T {
	return T(must(strconv.ParseInt(text, 10, 64)))
}

func unsigned[T uint8 | uint16 | uint32 | uint64 | coalmine.FP16 | coalmine.BF16](text string) T {
	return T(must(strconv.ParseUint(text, 10, 64)))
}

func float[T float32 | float64](text string) T { return T(must(strconv.ParseFloat(text, 64))) }

func spelt[T any](values []T) []string {
	all := []string{}
	for _, value := range values {
		all = append(all, fmt.Sprint(value))
	}
	return all
}

func inHex[T string | []byte](values []T) []string {
	all := []string{}
	for _, value := range values {
		all = append(all, hex.EncodeToString([]byte(value)))
	}
	return all
}

// ---------------------------------------------------------------- raw, by the client

func (in input) tensor() coalmine.Tensor {
	switch in.Datatype {
	case "BOOL":
		return coalmine.NewTensor(in.Name, each(in.Values, boolean), in.Shape...)
	case "UINT8":
		return coalmine.NewTensor(in.Name, each(in.Values, unsigned[uint8]), in.Shape...)
	case "UINT16":
		return coalmine.NewTensor(in.Name, each(in.Values, unsigned[uint16]), in.Shape...)
	case "UINT32":
		return coalmine.NewTensor(in.Name, each(in.Values, unsigned[uint32]), in.Shape...)
	case "UINT64":
		return coalmine.NewTensor(in.Name, each(in.Values, unsigned[uint64]), in.Shape...)
	case "INT8":
		return coalmine.NewTensor(in.Name, each(in.Values, signed[int8]), in.Shape...)
	case "INT16":
		return coalmine.NewTensor(in.Name, each(in.Values, signed[int16]), in.Shape...)
	case "INT32":
		return coalmine.NewTensor(in.Name, each(in.Values, signed[int32]), in.Shape...)
	case "INT64":
		return coalmine.NewTensor(in.Name, each(in.Values, signed[int64]), in.Shape...)
	case "FP16":
		return coalmine.NewTensor(in.Name, each(in.Values, unsigned[coalmine.FP16]), in.Shape...)
	case "BF16":
		return coalmine.NewTensor(in.Name, each(in.Values, unsigned[coalmine.BF16]), in.Shape...)
	case "FP32":
		return coalmine.NewTensor(in.Name, each(in.Values, float[float32]), in.Shape...)
	case "FP64":
		return coalmine.NewTensor(in.Name, each(in.Values, float[float64]), in.Shape...)
	default:
		text := func(value string) string { return string(element(value)) }
		return coalmine.NewTensor(in.Name, each(in.Values, text), in.Shape...)
	}
}

func raw(answer *inference.ModelInferResponse, name, datatype string) []string {
	switch datatype {
	case "BOOL":
		return output[bool](answer, name)
	case "UINT8":
		return output[uint8](answer, name)
	case "UINT16":
		return output[uint16](answer, name)
	case "UINT32":
		return output[uint32](answer, name)
	case "UINT64":
		return output[uint64](answer, name)
	case "INT8":
		return output[int8](answer, name)
	case "INT16":
		return output[int16](answer, name)
	case "INT32":
		return output[int32](answer, name)
	case "INT64":
		return output[int64](answer, name)
	case "FP16":
		return output[coalmine.FP16](answer, name)
	case "BF16":
		return output[coalmine.BF16](answer, name)
	case "FP32":
		return output[float32](answer, name)
	case "FP64":
		return output[float64](answer, name)
	default:
		values, _, err := coalmine.Output[string](answer, name)
		return inHex(must(values, err))
	}
}

func output[T coalmine.Element](answer *inference.ModelInferResponse, name string) []string {
	values, _, err := coalmine.Output[T](answer, name)
	return spelt(must(values, err))
}

// ---------------------------------------------------------------- typed

func (in input) contents() *inference.InferTensorContents {
	switch in.Datatype {
	case "BOOL":
		return &inference.InferTensorContents{BoolContents: each(in.Values, boolean)}
	case "UINT8", "UINT16", "UINT32":
		return &inference.InferTensorContents{UintContents: each(in.Values, unsigned[uint32])}
	case "UINT64":
		return &inference.InferTensorContents{Uint64Contents: each(in.Values, unsigned[uint64])}
	case "INT8", "INT16", "INT32":
		return &inference.InferTensorContents{IntContents: each(in.Values, signed[int32])}
	case "INT64":
		return &inference.InferTensorContents{Int64Contents: each(in.Values, signed[int64])}
	case "FP32":
		return &inference.InferTensorContents{Fp32Contents: each(in.Values, float[float32])}
	case "FP64":
		return &inference.InferTensorContents{Fp64Contents: each(in.Values, float[float64])}
	default:
		return &inference.InferTensorContents{BytesContents: each(in.Values, element)}
	}
}

func typed(contents *inference.InferTensorContents, datatype string) []string {
	switch datatype {
	case "BOOL":
		return spelt(contents.BoolContents)
	case "UINT8", "UINT16", "UINT32":
		return spelt(contents.UintContents)
	case "UINT64":
		return spelt(contents.Uint64Contents)
	case "INT8", "INT16", "INT32":
		return spelt(contents.IntContents)
	case "INT64":
		return spelt(contents.Int64Contents)
	case "FP32":
		return spelt(contents.Fp32Contents)
	case "FP64":
		return spelt(contents.Fp64Contents)
	default:
		return inHex(contents.BytesContents)
	}
}

func answerOf(answer *inference.ModelInferResponse) told {
	outputs := []told{}
	for _, each := range answer.Outputs {
		var values []string
		if len(answer.RawOutputContents) > 0 {
			values = raw(answer, each.Name, each.Datatype)
		} else {
			values = typed(each.Contents, each.Datatype)
		}
		outputs = append(outputs, told{
			"name": each.Name, "datatype": each.Datatype, "shape": each.Shape, "values": values,
		})
	}
	return told{
		"id": answer.Id, "model": answer.ModelName, "version": answer.ModelVersion,
		"outputs": outputs,
	}
}
