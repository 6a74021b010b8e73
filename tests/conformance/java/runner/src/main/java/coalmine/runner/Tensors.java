package coalmine.runner;

import coalmine.client.Output;
import coalmine.client.Tensor;
import coalmine.inference.InferTensorContents;
import coalmine.inference.ModelInferRequest;
import coalmine.inference.ModelInferResponse;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.protobuf.ByteString;
import java.math.BigInteger;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.function.Function;
import java.util.function.IntFunction;
import java.util.stream.IntStream;
import java.util.stream.Stream;

/** Requests from the list's calls, and answers as the list has them. */
final class Tensors {
  private Tensors() {}

  static ModelInferRequest request(JsonObject call) {
    List<JsonObject> inputs =
        call.getAsJsonArray("inputs").asList().stream().map(JsonElement::getAsJsonObject).toList();
    Tensor[] tensors = inputs.stream().map(Tensors::raw).toArray(Tensor[]::new);
    var request = Tensor.request(call.get("model").getAsString(), tensors);
    request.setModelVersion(call.has("version") ? call.get("version").getAsString() : "");
    request.setId(call.has("id") ? call.get("id").getAsString() : "");
    for (int at = 0; at < inputs.size(); at++) {
      if (inputs.get(at).get("typed").getAsBoolean()) {
        request.clearRawInputContents().getInputsBuilder(at).setContents(typed(inputs.get(at)));
      }
    }
    if (call.has("outputs")) {
      for (JsonElement name : call.getAsJsonArray("outputs")) {
        request.addOutputsBuilder().setName(name.getAsString());
      }
    }
    return request.build();
  }

  static Map<String, Object> answer(ModelInferResponse answer) {
    List<Map<String, Object>> outputs = new ArrayList<>();
    for (var each : answer.getOutputsList()) {
      List<String> values =
          answer.getRawOutputContentsCount() > 0
              ? spelt(Output.of(answer, each.getName()))
              : spelt(each.getDatatype(), each.getContents());
      outputs.add(
          Map.of(
              "name", each.getName(),
              "datatype", each.getDatatype(),
              "shape", each.getShapeList(),
              "values", values));
    }
    return Map.of(
        "id", answer.getId(),
        "model", answer.getModelName(),
        "version", answer.getModelVersion(),
        "outputs", outputs);
  }

  // ---------------------------------------------------------------- from text

  private static Tensor raw(JsonObject input) {
    String name = input.get("name").getAsString();
    String datatype = input.get("datatype").getAsString();
    long[] shape =
        input.getAsJsonArray("shape").asList().stream().mapToLong(JsonElement::getAsLong).toArray();
    List<String> texts = texts(input);
    return switch (datatype) {
      case "BOOL" -> Tensor.of(name, booleans(texts), shape);
      case "INT8", "UINT8" -> Tensor.of(name, bytes(texts), shape).as(datatype);
      case "INT16", "UINT16", "FP16", "BF16" -> Tensor.of(name, shorts(texts), shape).as(datatype);
      case "INT32", "UINT32" ->
          Tensor.of(name, texts.stream().mapToInt(each -> (int) whole(each)).toArray(), shape)
              .as(datatype);
      case "INT64", "UINT64" ->
          Tensor.of(name, texts.stream().mapToLong(Tensors::whole).toArray(), shape).as(datatype);
      case "FP32" -> Tensor.of(name, floats(texts), shape);
      case "FP64" ->
          Tensor.of(name, texts.stream().mapToDouble(Double::parseDouble).toArray(), shape);
      default -> Tensor.of(name, texts.stream().map(Tensors::element).toList(), shape);
    };
  }

  private static InferTensorContents typed(JsonObject input) {
    var contents = InferTensorContents.newBuilder();
    for (String each : texts(input)) {
      switch (input.get("datatype").getAsString()) {
        case "BOOL" -> contents.addBoolContents(Boolean.parseBoolean(each));
        case "INT8", "INT16", "INT32" -> contents.addIntContents((int) whole(each));
        case "INT64" -> contents.addInt64Contents(whole(each));
        case "UINT8", "UINT16", "UINT32" -> contents.addUintContents((int) whole(each));
        case "UINT64" -> contents.addUint64Contents(whole(each));
        case "FP32" -> contents.addFp32Contents(Float.parseFloat(each));
        case "FP64" -> contents.addFp64Contents(Double.parseDouble(each));
        default -> contents.addBytesContents(element(each));
      }
    }
    return contents.build();
  }

  private static List<String> texts(JsonObject input) {
    return input.getAsJsonArray("values").asList().stream().map(JsonElement::getAsString).toList();
  }

  /** Returns the bits of an integer, of UINT64 too. */
  private static long whole(String text) {
    return new BigInteger(text).longValue();
  }

  private static ByteString element(String hex) {
    return ByteString.copyFrom(HexFormat.of().parseHex(hex));
  }

  private static boolean[] booleans(List<String> texts) {
    boolean[] values = new boolean[texts.size()];
    for (int at = 0; at < values.length; at++) {
      values[at] = Boolean.parseBoolean(texts.get(at));
    }
    return values;
  }

  private static byte[] bytes(List<String> texts) {
    byte[] values = new byte[texts.size()];
    for (int at = 0; at < values.length; at++) {
      values[at] = (byte) whole(texts.get(at));
    }
    return values;
  }

  private static short[] shorts(List<String> texts) {
    short[] values = new short[texts.size()];
    for (int at = 0; at < values.length; at++) {
      values[at] = (short) whole(texts.get(at));
    }
    return values;
  }

  private static float[] floats(List<String> texts) {
    float[] values = new float[texts.size()];
    for (int at = 0; at < values.length; at++) {
      values[at] = Float.parseFloat(texts.get(at));
    }
    return values;
  }

  // ---------------------------------------------------------------- to text

  private static List<String> spelt(Output output) {
    switch (output.datatype()) {
      case "BOOL":
        boolean[] booleans = output.booleans();
        return each(booleans.length, at -> String.valueOf(booleans[at]));
      case "INT8", "UINT8":
        byte[] bytes = output.bytes();
        boolean isSigned = output.datatype().equals("INT8");
        return each(
            bytes.length,
            at -> String.valueOf(isSigned ? bytes[at] : Byte.toUnsignedInt(bytes[at])));
      case "INT16":
        short[] signed = output.shorts();
        return each(signed.length, at -> String.valueOf(signed[at]));
      case "UINT16", "FP16", "BF16":
        short[] shorts = output.shorts();
        return each(shorts.length, at -> String.valueOf(Short.toUnsignedInt(shorts[at])));
      case "INT32":
        return IntStream.of(output.ints()).mapToObj(String::valueOf).toList();
      case "UINT32":
        return IntStream.of(output.ints()).mapToObj(Integer::toUnsignedString).toList();
      case "INT64":
        long[] longs = output.longs();
        return each(longs.length, at -> String.valueOf(longs[at]));
      case "UINT64":
        long[] unsigned = output.longs();
        return each(unsigned.length, at -> Long.toUnsignedString(unsigned[at]));
      case "FP32":
        float[] floats = output.floats();
        return each(floats.length, at -> String.valueOf(floats[at]));
      case "FP64":
        double[] doubles = output.doubles();
        return each(doubles.length, at -> String.valueOf(doubles[at]));
      default:
        return output.elements().stream().map(Tensors::hex).toList();
    }
  }

  private static List<String> spelt(String datatype, InferTensorContents contents) {
    return switch (datatype) {
      case "BOOL" -> all(contents.getBoolContentsList(), String::valueOf);
      case "INT8", "INT16", "INT32" -> all(contents.getIntContentsList(), String::valueOf);
      case "INT64" -> all(contents.getInt64ContentsList(), String::valueOf);
      case "UINT8", "UINT16", "UINT32" ->
          all(contents.getUintContentsList(), Integer::toUnsignedString);
      case "UINT64" -> all(contents.getUint64ContentsList(), Long::toUnsignedString);
      case "FP32" -> all(contents.getFp32ContentsList(), String::valueOf);
      case "FP64" -> all(contents.getFp64ContentsList(), String::valueOf);
      default -> all(contents.getBytesContentsList(), Tensors::hex);
    };
  }

  private static List<String> each(int count, IntFunction<String> spelt) {
    return IntStream.range(0, count).mapToObj(spelt).toList();
  }

  private static <T> List<String> all(List<T> values, Function<T, String> spelt) {
    Stream<T> stream = values.stream();
    return stream.map(spelt).toList();
  }

  private static String hex(ByteString bytes) {
    return HexFormat.of().formatHex(bytes.toByteArray());
  }
}
