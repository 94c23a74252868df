package sts;

import java.net.URL;
import java.time.Instant;
import java.util.List;
import java.util.Map;
import java.util.Set;

import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.boot.autoconfigure.condition.ConditionalOnProperty;
import org.springframework.context.annotation.Bean;
import org.springframework.security.core.userdetails.User;
import org.springframework.security.core.userdetails.UserDetailsService;
import org.springframework.security.crypto.password.PasswordEncoder;
import org.springframework.security.oauth2.core.AuthorizationGrantType;
import org.springframework.security.oauth2.server.authorization.authentication.OAuth2TokenExchangeAuthenticationToken;
import org.springframework.security.oauth2.server.authorization.token.JwtEncodingContext;
import org.springframework.security.oauth2.server.authorization.token.OAuth2TokenCustomizer;
import org.springframework.security.provisioning.InMemoryUserDetailsManager;

/**
 * Spring's authorization server as its starter configures it: clients are in application.yml, users here. With
 * {@code sts.customize}, what a sidecar needs besides is added by the framework's own extension point.
 */
@SpringBootApplication
public class Sts {

    public static void main(String[] arguments) {
        SpringApplication.run(Sts.class, arguments);
    }

    @Bean
    UserDetailsService users() {
        return new InMemoryUserDetailsManager(
            User.withUsername("alice").password("of alice").build(),
            User.withUsername("bob").password("of bob").build());
    }

    /** Compares as they are: the default hashes a secret with bcrypt at its first use, and every exchange then takes 0.1 s. */
    @Bean
    PasswordEncoder plain() {
        return new PasswordEncoder() {
            @Override
            public String encode(CharSequence raw) {
                return raw.toString();
            }

            @Override
            public boolean matches(CharSequence raw, String encoded) {
                return encoded.contentEquals(raw);
            }
        };
    }

    /** The server names no client, ignores {@code audience}, and lets an issued token outlive its subject token. */
    @Bean
    @ConditionalOnProperty(name = "sts.customize", havingValue = "true")
    OAuth2TokenCustomizer<JwtEncodingContext> customizer() {
        return context -> {
            context.getClaims().claim("client_id", context.getRegisteredClient().getClientId());
            if (!(context.getAuthorizationGrant() instanceof OAuth2TokenExchangeAuthenticationToken exchange)) {
                return;
            }
            if (!exchange.getAudiences().isEmpty()) {
                context.getClaims().audience(List.copyOf(exchange.getAudiences()));
            }
            Instant limit = context.getAuthorization().getAccessToken().getToken().getExpiresAt();
            context.getClaims().claims(claims -> {
                if (((Instant) claims.get("exp")).isAfter(limit)) {
                    claims.put("exp", limit);
                }
            });
        };
    }

    /** The server as it comes, except for the client's name in each token. */
    @Bean
    @ConditionalOnProperty(name = "sts.customize", havingValue = "client")
    OAuth2TokenCustomizer<JwtEncodingContext> clientNamer() {
        return context -> context.getClaims().claim("client_id", context.getRegisteredClient().getClientId());
    }

    /**
     * Logins with one of two scopes get {@code may_act} for the planner, with the issuer as a URL or as a String. As JSON
     * both are the same; the framework keeps the issuer of an actor token as a URL, and compares by {@code equals}.
     */
    @Bean
    @ConditionalOnProperty(name = "sts.customize", havingValue = "may-act")
    OAuth2TokenCustomizer<JwtEncodingContext> delegator() {
        return context -> {
            Set<String> scopes = context.getAuthorizedScopes();
            boolean object = scopes.contains("plan.make");
            if (AuthorizationGrantType.AUTHORIZATION_CODE.equals(context.getAuthorizationGrantType())
                && (object || scopes.contains("docs.write"))) {
                URL issuer = context.getClaims().build().getIssuer();
                context.getClaims().claim("may_act", Map.of(
                    "iss", object ? issuer : issuer.toString(), "sub", "spiffe://acme.example/agent/planner"));
            }
        };
    }
}
