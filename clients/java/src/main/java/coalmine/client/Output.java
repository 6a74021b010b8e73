package coalmine.client;

import com.google.protobuf.ByteString;
import coalmine.inference.ModelInferResponse;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;

/** An output of an answer, row by row. Reading it as another datatype than it has throws. */
public final class Output {
  private final ModelInferResponse.InferOutputTensor tensor;
  private final ByteString raw;

  private Output(ModelInferResponse.InferOutputTensor tensor, ByteString raw) {
    this.tensor = tensor;
    this.raw = raw;
  }

  /** Returns the answer's output of that name. */
  public static Output of(ModelInferResponse answer, String name) {
    for (int at = 0; at < answer.getOutputsCount(); at++) {
      if (answer.getOutputs(at).getName().equals(name)) {
        return new Output(answer.getOutputs(at), answer.getRawOutputContents(at));
      }
    }
    throw new IllegalArgumentException("there is no output '" + name + "'");
  }

  public String datatype() {
    return tensor.getDatatype();
  }

  public List<Long> shape() {
    return tensor.getShapeList();
  }

  public boolean[] booleans() {
    byte[] bytes = buffer("BOOL").array();
    boolean[] values = new boolean[bytes.length];
    for (int at = 0; at < bytes.length; at++) {
      values[at] = bytes[at] != 0;
    }
    return values;
  }

  public byte[] bytes() {
    return buffer("INT8", "UINT8").array();
  }

  public short[] shorts() {
    short[] values = new short[raw.size() / Short.BYTES];
    buffer("INT16", "UINT16", "FP16", "BF16").asShortBuffer().get(values);
    return values;
  }

  public int[] ints() {
    int[] values = new int[raw.size() / Integer.BYTES];
    buffer("INT32", "UINT32").asIntBuffer().get(values);
    return values;
  }

  public long[] longs() {
    long[] values = new long[raw.size() / Long.BYTES];
    buffer("INT64", "UINT64").asLongBuffer().get(values);
    return values;
  }

  public float[] floats() {
    float[] values = new float[raw.size() / Float.BYTES];
    buffer("FP32").asFloatBuffer().get(values);
    return values;
  }

  public double[] doubles() {
    double[] values = new double[raw.size() / Double.BYTES];
    buffer("FP64").asDoubleBuffer().get(values);
    return values;
  }

  /** Returns the elements of BYTES; one that is text is {@code element.toStringUtf8()}. */
  public List<ByteString> elements() {
    ByteBuffer rest = buffer("BYTES");
    List<ByteString> values = new ArrayList<>();
    while (rest.hasRemaining()) {
      int size = rest.getInt();
      values.add(ByteString.copyFrom(rest, size));
    }
    return values;
  }

  private ByteBuffer buffer(String... datatypes) {
    if (!Set.of(datatypes).contains(tensor.getDatatype())) {
      throw new IllegalArgumentException(
          "output '%s' has %s".formatted(tensor.getName(), tensor.getDatatype()));
    }
    return ByteBuffer.wrap(raw.toByteArray()).order(ByteOrder.LITTLE_ENDIAN);
  }
}
