package coalmine.client;

import com.google.protobuf.ByteString;
import coalmine.inference.ModelInferRequest;
import coalmine.inference.ModelInferRequest.InferInputTensor;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Arrays;
import java.util.List;

/**
 * A named input, row by row, ready to be sent.
 *
 * <p>Java has neither unsigned integers nor 16-bit floats: an array with their bits is one by {@link
 * #as}, as in {@code Tensor.of("x", bits, 2).as("BF16")}.
 */
public final class Tensor {
  private final String name;
  private final String datatype;
  private final long[] shape;
  private final ByteString raw;

  private Tensor(String name, String datatype, long[] shape, ByteString raw) {
    this.name = name;
    this.datatype = datatype;
    this.shape = shape;
    this.raw = raw;
  }

  public static Tensor of(String name, boolean[] values, long... shape) {
    ByteBuffer raw = buffer(values.length);
    for (boolean each : values) {
      raw.put((byte) (each ? 1 : 0));
    }
    return new Tensor(name, "BOOL", shape, whole(raw));
  }

  public static Tensor of(String name, byte[] values, long... shape) {
    return new Tensor(name, "INT8", shape, ByteString.copyFrom(values));
  }

  public static Tensor of(String name, short[] values, long... shape) {
    ByteBuffer raw = buffer(Short.BYTES * values.length);
    raw.asShortBuffer().put(values);
    return new Tensor(name, "INT16", shape, whole(raw));
  }

  public static Tensor of(String name, int[] values, long... shape) {
    ByteBuffer raw = buffer(Integer.BYTES * values.length);
    raw.asIntBuffer().put(values);
    return new Tensor(name, "INT32", shape, whole(raw));
  }

  public static Tensor of(String name, long[] values, long... shape) {
    ByteBuffer raw = buffer(Long.BYTES * values.length);
    raw.asLongBuffer().put(values);
    return new Tensor(name, "INT64", shape, whole(raw));
  }

  public static Tensor of(String name, float[] values, long... shape) {
    ByteBuffer raw = buffer(Float.BYTES * values.length);
    raw.asFloatBuffer().put(values);
    return new Tensor(name, "FP32", shape, whole(raw));
  }

  public static Tensor of(String name, double[] values, long... shape) {
    ByteBuffer raw = buffer(Double.BYTES * values.length);
    raw.asDoubleBuffer().put(values);
    return new Tensor(name, "FP64", shape, whole(raw));
  }

  /** Returns elements of BYTES; a text is {@code ByteString.copyFromUtf8(text)}. */
  public static Tensor of(String name, List<ByteString> values, long... shape) {
    ByteBuffer raw = buffer(values.stream().mapToInt(each -> Integer.BYTES + each.size()).sum());
    for (ByteString each : values) {
      raw.putInt(each.size());
      each.copyTo(raw);
    }
    return new Tensor(name, "BYTES", shape, whole(raw));
  }

  /** Returns the same bits as another datatype, such as UINT8, FP16 or BF16. */
  public Tensor as(String otherDatatype) {
    return new Tensor(name, otherDatatype, shape, raw);
  }

  /** Returns a request with these inputs; set its id, version or parameters as needed. */
  public static ModelInferRequest.Builder request(String model, Tensor... inputs) {
    ModelInferRequest.Builder request = ModelInferRequest.newBuilder().setModelName(model);
    for (Tensor each : inputs) {
      InferInputTensor.Builder input = request.addInputsBuilder();
      input.setName(each.name).setDatatype(each.datatype);
      Arrays.stream(each.shape).forEach(input::addShape);
      request.addRawInputContents(each.raw);
    }
    return request;
  }

  private static ByteBuffer buffer(int size) {
    return ByteBuffer.allocate(size).order(ByteOrder.LITTLE_ENDIAN);
  }

  private static ByteString whole(ByteBuffer raw) {
    return ByteString.copyFrom(raw.array());
  }
}
