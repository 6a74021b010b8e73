package coalmine

import (
	"encoding/binary"
	"fmt"

	"coalmine/clients/go/inference"
)

// FP16 and BF16 hold the bits of a 16-bit float; Go has no arithmetic for them.
type (
	FP16 uint16
	BF16 uint16
)

// Element is what a slice of a tensor may hold. A string is an element of BYTES, any bytes at all.
type Element interface {
	bool | uint8 | uint16 | uint32 | uint64 | int8 | int16 | int32 | int64 |
		FP16 | BF16 | float32 | float64 | string
}

// Tensor is a named input, ready to be sent.
type Tensor struct {
	name, datatype string
	shape          []int64
	raw            []byte
}

// NewTensor returns values, row by row, as an input; the datatype is that of its elements.
func NewTensor[T Element](name string, values []T, shape ...int64) Tensor {
	return Tensor{name, datatypeOf[T](), shape, encode(values)}
}

// Request returns a request with these inputs. Set its Id, ModelVersion or Parameters as needed.
func Request(model string, inputs ...Tensor) *inference.ModelInferRequest {
	request := &inference.ModelInferRequest{ModelName: model}
	for _, each := range inputs {
		request.Inputs = append(request.Inputs, &inference.ModelInferRequest_InferInputTensor{
			Name: each.name, Datatype: each.datatype, Shape: each.shape,
		})
		request.RawInputContents = append(request.RawInputContents, each.raw)
	}
	return request
}

// Output returns the values, row by row, and the shape of the answer's output of that name.
func Output[T Element](answer *inference.ModelInferResponse, name string) ([]T, []int64, error) {
	for at, each := range answer.Outputs {
		if each.Name != name {
			continue
		}
		if want := datatypeOf[T](); each.Datatype != want {
			return nil, nil, fmt.Errorf("output %q has %s, not %s", name, each.Datatype, want)
		}
		if at >= len(answer.RawOutputContents) {
			return nil, nil, fmt.Errorf("output %q has no raw contents", name)
		}
		values, err := decode[T](answer.RawOutputContents[at])
		return values, each.Shape, err
	}
	return nil, nil, fmt.Errorf("there is no output %q", name)
}

func datatypeOf[T Element]() string {
	switch any(*new(T)).(type) {
	case bool:
		return "BOOL"
	case float32:
		return "FP32"
	case float64:
		return "FP64"
	case FP16:
		return "FP16"
	case BF16:
		return "BF16"
	case string:
		return "BYTES"
	case uint8, uint16, uint32, uint64:
		return fmt.Sprintf("UINT%d", 8*binary.Size(*new(T)))
	default:
		return fmt.Sprintf("INT%d", 8*binary.Size(*new(T)))
	}
}

func encode[T Element](values []T) []byte {
	if texts, ok := any(values).([]string); ok {
		return encodeTexts(texts)
	}
	raw, err := binary.Append(nil, binary.LittleEndian, values)
	if err != nil { // every other Element has a fixed size
		panic(err)
	}
	return raw
}

func encodeTexts(texts []string) []byte {
	var raw []byte
	for _, each := range texts {
		raw = binary.LittleEndian.AppendUint32(raw, uint32(len(each)))
		raw = append(raw, each...)
	}
	return raw
}

func decode[T Element](raw []byte) ([]T, error) {
	if _, ok := any(*new(T)).(string); ok {
		texts, err := decodeTexts(raw)
		return any(texts).([]T), err
	}
	size := binary.Size(*new(T))
	if len(raw)%size != 0 {
		return nil, fmt.Errorf("%d bytes are no whole number of %s", len(raw), datatypeOf[T]())
	}
	values := make([]T, len(raw)/size)
	_, err := binary.Decode(raw, binary.LittleEndian, values)
	return values, err
}

func decodeTexts(raw []byte) ([]string, error) {
	var texts []string
	for len(raw) > 0 {
		if len(raw) < 4 || uint64(len(raw)-4) < uint64(binary.LittleEndian.Uint32(raw)) {
			return nil, fmt.Errorf("BYTES end within an element")
		}
		end := 4 + int(binary.LittleEndian.Uint32(raw))
		texts = append(texts, string(raw[4:end]))
		raw = raw[end:]
	}
	return texts, nil
}
