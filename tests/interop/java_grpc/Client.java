import static java.nio.charset.StandardCharsets.US_ASCII;

import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientInterceptors;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.MethodDescriptor.MethodType;
import io.grpc.Status;
import io.grpc.netty.shaded.io.grpc.netty.NettyChannelBuilder;
import io.grpc.stub.ClientCalls;
import io.grpc.stub.MetadataUtils;
import io.grpc.stub.StreamObserver;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;

/**
 * A client of gRPC whose messages are bytes, so that no protoc is needed to build it.
 *
 * <p>{@code Client last ADDRESS TOKEN SECONDS} keeps the four kinds of calls open so long, and prints how each ended.
 */
final class Client {
    private static final class Raw implements MethodDescriptor.Marshaller<byte[]> {
        @Override
        public InputStream stream(byte[] message) {
            return new ByteArrayInputStream(message);
        }

        @Override
        public byte[] parse(InputStream stream) {
            try {
                return stream.readAllBytes();
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
        }
    }

    /** Counts the answers of a stream; the last one and their number are known once it ends. */
    private static final class Answers implements StreamObserver<byte[]> {
        private final CompletableFuture<Void> ended = new CompletableFuture<>();
        private int count;
        private byte[] last = {};

        @Override
        public void onNext(byte[] answer) {
            count++;
            last = answer;
        }

        @Override
        public void onError(Throwable error) {
            ended.completeExceptionally(error);
        }

        @Override
        public void onCompleted() {
            ended.complete(null);
        }
    }

    private final Channel channel;
    private final int seconds;

    private Client(Channel channel, int seconds) {
        this.channel = channel;
        this.seconds = seconds;
    }

    private static MethodDescriptor<byte[], byte[]> method(String name, MethodType type) {
        return MethodDescriptor.newBuilder(new Raw(), new Raw())
                .setFullMethodName(MethodDescriptor.generateFullMethodName("demo.Echo", name))
                .setType(type)
                .build();
    }

    private byte[] text() {
        return Integer.toString(seconds).getBytes(US_ASCII);
    }

    /** Sends five messages in the whole time, and ends the stream at its end. */
    private void sendSlowly(StreamObserver<byte[]> requests) throws InterruptedException {
        for (int number = 0; number < 5; number++) {
            requests.onNext("1".getBytes(US_ASCII));
            TimeUnit.MILLISECONDS.sleep(seconds * 1000L / 5);
        }
        requests.onCompleted();
    }

    private String hold() {
        CallOptions limited = CallOptions.DEFAULT.withDeadlineAfter(2L * seconds, TimeUnit.SECONDS);
        return new String(
                ClientCalls.blockingUnaryCall(channel, method("Hold", MethodType.UNARY), limited, text()), US_ASCII);
    }

    private String drip() {
        Iterator<byte[]> answers = ClientCalls.blockingServerStreamingCall(
                channel, method("Drip", MethodType.SERVER_STREAMING), CallOptions.DEFAULT, text());
        int got = 0;
        for (; answers.hasNext(); answers.next()) {
            got++;
        }
        return Integer.toString(got);
    }

    private String sum() throws Exception {
        Answers answers = new Answers();
        sendSlowly(ClientCalls.asyncClientStreamingCall(
                channel.newCall(method("Sum", MethodType.CLIENT_STREAMING), CallOptions.DEFAULT), answers));
        answers.ended.get();
        return new String(answers.last, US_ASCII);
    }

    private String talk() throws Exception {
        Answers answers = new Answers();
        sendSlowly(ClientCalls.asyncBidiStreamingCall(
                channel.newCall(method("Talk", MethodType.BIDI_STREAMING), CallOptions.DEFAULT), answers));
        answers.ended.get();
        return Integer.toString(answers.count);
    }

    private static String ending(Callable<String> call) {
        try {
            return call.call() + " OK";
        } catch (Exception error) {
            return " " + Status.fromThrowable(error).getCode();
        }
    }

    public static void main(String[] words) throws Exception {
        if (words.length != 4 || !words[0].equals("last")) {
            throw new IllegalArgumentException("usage: Client last ADDRESS TOKEN SECONDS");
        }
        Metadata shown = new Metadata();
        shown.put(Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER), "Bearer " + words[2]);
        ManagedChannel connection = NettyChannelBuilder.forTarget("dns:///" + words[1])
                .usePlaintext()
                .overrideAuthority("planner.mesh")
                .build();
        ExecutorService threads = Executors.newCachedThreadPool();
        try {
            Channel channel =
                    ClientInterceptors.intercept(connection, MetadataUtils.newAttachHeadersInterceptor(shown));
            Client client = new Client(channel, Integer.parseInt(words[3]));
            Map<String, Callable<String>> calls = new LinkedHashMap<>();
            calls.put("hold", client::hold);
            calls.put("drip", client::drip);
            calls.put("sum", client::sum);
            calls.put("talk", client::talk);
            Map<String, Future<String>> endings = new LinkedHashMap<>();
            calls.forEach((name, call) -> endings.put(name, threads.submit(() -> ending(call))));
            for (Map.Entry<String, Future<String>> one : endings.entrySet()) {
                System.out.println(one.getKey() + " " + one.getValue().get());
            }
        } finally {
            threads.shutdown();
            connection.shutdownNow().awaitTermination(5, TimeUnit.SECONDS);
        }
    }
}
