import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.concurrent.Executors;

/** An agent in plain Java, without a library: it sends the handle of each request back with the calls for it. */
public class Agent {
    public static void main(String[] arguments) throws Exception {
        URI customer = URI.create(System.getenv("SIDECAR_OUTBOUND_URL") + "/crm/customers/42");
        HttpClient client = HttpClient.newHttpClient(); // follows no redirect, which would take the handle along
        HttpServer server = HttpServer.create(
                new InetSocketAddress("127.0.0.1", Integer.parseInt(System.getenv("PORT"))), 128);
        server.setExecutor(Executors.newCachedThreadPool());
        server.createContext("/ask", exchange -> {
            try (exchange) {
                HttpRequest.Builder call = HttpRequest.newBuilder(customer);
                String handle = exchange.getRequestHeaders().getFirst("Delegation-Handle");
                if (handle != null) {
                    call.header("Delegation-Handle", handle);
                }
                var answer = client.send(call.build(), BodyHandlers.ofByteArray());
                boolean refused = answer.statusCode() != 200;
                exchange.sendResponseHeaders(refused ? 502 : 200, refused ? -1 : answer.body().length);
                exchange.getResponseBody().write(refused ? new byte[0] : answer.body());
            } catch (InterruptedException ended) {
                Thread.currentThread().interrupt();
            }
        });
        server.start();
    }
}
