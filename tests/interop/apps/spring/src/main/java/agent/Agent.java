package agent;

import jakarta.servlet.http.HttpServletRequest;
import java.util.Collections;
import java.util.HashMap;
import java.util.Map;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.web.bind.annotation.RequestMapping;
import org.springframework.web.bind.annotation.RestController;

/** Tells, as JSON, what Spring Boot says of a request. */
@SpringBootApplication
@RestController
public class Agent {
    public static void main(String[] arguments) {
        SpringApplication.run(Agent.class, arguments);
    }

    @RequestMapping("/**")
    Map<String, Object> view(HttpServletRequest request) {
        Map<String, String> fields = new HashMap<>();
        for (String name : Collections.list(request.getHeaderNames())) {
            fields.put(name, request.getHeader(name));
        }
        String user = request.getRemoteUser();
        return Map.of(
                "path", request.getContextPath() + "|" + request.getRequestURI(),
                "method", request.getMethod(),
                "scheme", request.getScheme(),
                "host", request.getServerName() + ":" + request.getServerPort(),
                "client", request.getRemoteAddr(),
                "user", user == null ? "" : user,
                "fields", fields);
    }
}
