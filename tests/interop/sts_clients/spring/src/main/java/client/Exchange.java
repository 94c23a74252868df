package client;

import java.net.http.HttpClient;
import java.time.Instant;
import java.util.LinkedHashMap;
import java.util.Map;

import org.springframework.http.client.JdkClientHttpRequestFactory;
import org.springframework.http.converter.FormHttpMessageConverter;
import org.springframework.security.oauth2.client.endpoint.RestClientTokenExchangeTokenResponseClient;
import org.springframework.security.oauth2.client.endpoint.TokenExchangeGrantRequest;
import org.springframework.security.oauth2.client.http.OAuth2ErrorResponseErrorHandler;
import org.springframework.security.oauth2.client.registration.ClientRegistration;
import org.springframework.security.oauth2.core.AuthorizationGrantType;
import org.springframework.security.oauth2.core.ClientAuthenticationMethod;
import org.springframework.security.oauth2.core.OAuth2AccessToken;
import org.springframework.security.oauth2.core.OAuth2AuthorizationException;
import org.springframework.security.oauth2.core.OAuth2Token;
import org.springframework.security.oauth2.core.http.converter.OAuth2AccessTokenResponseHttpMessageConverter;
import org.springframework.security.oauth2.jwt.Jwt;
import org.springframework.util.LinkedMultiValueMap;
import org.springframework.web.client.RestClient;
import tools.jackson.databind.JsonNode;
import tools.jackson.databind.json.JsonMapper;

/**
 * One exchange with Spring Security's client over TLS with an X.509-SVID. It reads a question as JSON from standard
 * input, and writes what the client says of the answer. The type of a token follows from its class: a Jwt is of type
 * jwt. The audience is added as parameters, since a grant request has none.
 */
public final class Exchange {

    public static void main(String[] arguments) throws Exception {
        JsonMapper json = new JsonMapper();
        JsonNode asked = json.readTree(System.in);
        HttpClient over = HttpClient.newBuilder().sslContext(Svid.context(
            text(asked, "certificate"), text(asked, "key"), text(asked, "bundle"), text(asked, "peer"))).build();
        RestClient rest = RestClient.builder()
            .requestFactory(new JdkClientHttpRequestFactory(over))
            .messageConverters(converters -> {
                converters.clear();
                converters.add(new FormHttpMessageConverter());
                converters.add(new OAuth2AccessTokenResponseHttpMessageConverter());
            })
            .defaultStatusHandler(new OAuth2ErrorResponseErrorHandler())
            .build();
        RestClientTokenExchangeTokenResponseClient client = new RestClientTokenExchangeTokenResponseClient();
        client.setRestClient(rest);
        client.addParametersConverter(request -> {
            LinkedMultiValueMap<String, String> more = new LinkedMultiValueMap<>();
            asked.get("audience").forEach(one -> more.add("audience", one.asString()));
            return more;
        });
        Map<String, Object> told = new LinkedHashMap<>();
        try {
            OAuth2AccessToken issued = client.getTokenResponse(request(asked)).getAccessToken();
            told.put("access_token", issued.getTokenValue());
            told.put("token_type", issued.getTokenType().getValue());
        } catch (OAuth2AuthorizationException refused) {
            boolean answered = refused.getCause() == null;
            told.put(answered ? "error" : "failed", refused.getError().getErrorCode());
        }
        System.out.print(json.writeValueAsString(told));
    }

    private static TokenExchangeGrantRequest request(JsonNode asked) {
        ClientRegistration registration = ClientRegistration.withRegistrationId("sts")
            .clientId(text(asked, "client_id"))
            .clientAuthenticationMethod(ClientAuthenticationMethod.TLS_CLIENT_AUTH)
            .authorizationGrantType(AuthorizationGrantType.TOKEN_EXCHANGE)
            .tokenUri(text(asked, "token_endpoint"))
            .scope(asked.get("scope").valueStream().map(JsonNode::asString).toList())
            .build();
        Instant now = Instant.now();
        OAuth2Token subject = new OAuth2AccessToken(
            OAuth2AccessToken.TokenType.BEARER, text(asked, "subject_token"), now, now.plusSeconds(300));
        String actor = text(asked, "actor_token");
        OAuth2Token acting = actor.isEmpty() ? null : new Jwt(
            actor, now, now.plusSeconds(300), Map.of("alg", "ES256"), Map.of("sub", text(asked, "client_id")));
        return new TokenExchangeGrantRequest(registration, subject, acting);
    }

    private static String text(JsonNode asked, String member) {
        return asked.get(member).asString();
    }
}
