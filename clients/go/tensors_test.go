package coalmine

import (
	"reflect"
	"testing"

	"coalmine/clients/go/inference"
)

func answerOf(request *inference.ModelInferRequest) *inference.ModelInferResponse {
	answer := &inference.ModelInferResponse{RawOutputContents: request.RawInputContents}
	for _, each := range request.Inputs {
		answer.Outputs = append(answer.Outputs, &inference.ModelInferResponse_InferOutputTensor{
			Name: each.Name, Datatype: each.Datatype, Shape: each.Shape,
		})
	}
	return answer
}

func thereAndBack[T Element](t *testing.T, datatype string, values ...T) {
	t.Helper()
	request := Request("m", NewTensor("x", values, int64(len(values))))
	if got := request.Inputs[0].Datatype; got != datatype {
		t.Errorf("%T is %s, not %s", values, got, datatype)
	}
	got, shape, err := Output[T](answerOf(request), "x")
	if err != nil || !reflect.DeepEqual(got, values) || shape[0] != int64(len(values)) {
		t.Errorf("%v came back as %v %v, %v", values, got, shape, err)
	}
}

func TestEveryDatatypeComesBackAsItWent(t *testing.T) {
	thereAndBack(t, "BOOL", true, false)
	thereAndBack[uint8](t, "UINT8", 0, 255)
	thereAndBack[uint16](t, "UINT16", 0, 65535)
	thereAndBack[uint32](t, "UINT32", 0, 1<<32-1)
	thereAndBack[uint64](t, "UINT64", 0, 1<<64-1)
	thereAndBack[int8](t, "INT8", -128, 127)
	thereAndBack[int16](t, "INT16", -32768, 32767)
	thereAndBack[int32](t, "INT32", -1<<31, 1<<31-1)
	thereAndBack[int64](t, "INT64", -1<<63, 1<<63-1)
	thereAndBack[FP16](t, "FP16", 0x3c00)
	thereAndBack[BF16](t, "BF16", 0x3f80)
	thereAndBack[float32](t, "FP32", 0.1, -2)
	thereAndBack[float64](t, "FP64", 0.1, -2)
	thereAndBack(t, "BYTES", "", "zwei", "\xff\x00")
}

func TestBytesAreLittleEndian(t *testing.T) {
	request := Request("m", NewTensor("x", []uint16{0x0102}, 1), NewTensor("w", []string{"ab"}, 1))
	want := [][]byte{{2, 1}, {2, 0, 0, 0, 'a', 'b'}}
	if !reflect.DeepEqual(request.RawInputContents, want) {
		t.Errorf("got %v", request.RawInputContents)
	}
}

func TestWhatCannotBeReadIsAnError(t *testing.T) {
	answer := answerOf(Request("m", NewTensor("x", []float32{1}, 1), NewTensor("w", []string{"ab"}, 1)))
	answer.RawOutputContents[0] = []byte{1, 2, 3}
	answer.RawOutputContents[1] = []byte{9, 0, 0, 0, 'a'}
	if _, _, err := Output[float32](answer, "x"); err == nil {
		t.Error("three bytes were read as FP32")
	}
	if _, _, err := Output[string](answer, "w"); err == nil {
		t.Error("a text that is cut off was read")
	}
	if _, _, err := Output[float64](answer, "x"); err == nil {
		t.Error("FP32 was read as FP64")
	}
	if _, _, err := Output[float32](answer, "y"); err == nil {
		t.Error("an output that isn't there was read")
	}
}
