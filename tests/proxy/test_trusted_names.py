from __future__ import annotations

import pytest

from sidecar.proxy.journeys.trusted_names import is_trusted_name

# Parser -> names from which it takes a path, method, scheme, host, client, user or certificate. One row each.
TRUSTED = {
    "gunicorn, by default from loopback": ["script_name", "path_info", "x-forwarded-protocol", "x-forwarded-ssl"],
    "uvicorn, by default from loopback": ["x-forwarded-proto", "x-forwarded-for"],
    "CGI, WSGI, Rack, PHP": ["remote_user", "remote-user", "remote-addr", "path-info", "script-name", "proxy", "https"],
    "mod_wsgi": ["x-client-ip", "x-host", "x-https", "x-scheme", "x-script-name", "x-forwarded-script-name"],
    "Flask's ReverseProxied and Pyramid's": ["x-script-name", "x-scheme", "x-url-scheme"],
    "Django": ["remote-user", "x-forwarded-host", "x-forwarded-port", "cloudfront-forwarded-proto"],
    "Rack and Rails": ["client-ip", "x-forwarded-scheme", "x-sendfile-type", "x-accel-mapping"],
    "Express and request-ip": [
        "x-client-ip",
        "cf-connecting-ip",
        "fastly-client-ip",
        "true-client-ip",
        "x-cluster-client-ip",
        "x-appengine-user-ip",
        "cf-pseudo-ipv4",
        "do-connecting-ip",
        "fly-client-ip",
        "forwarded-for",
        "x-forwarded",
    ],
    "Next.js": [
        "x-middleware-subrequest",
        "x-middleware-rewrite",
        "x-now-route-matches",
        "x-matched-path",
        "x-invoke-path",
        "x-nextjs-data",
    ],
    "React Router, Astro": ["x-react-router-prerender-data", "x-astro-path", "x-astro-locals"],
    "Spring": ["x-forwarded-prefix", "spring.cloud.function.definition", "spring.cloud.function.routing-expression"],
    "Tomcat, Jetty, WebLogic, WebSphere": [
        "ssl_client_cert",
        "ssl-client-cert",
        "x-proxied-https",
        "proxy-ssl-id",
        "wl-proxy-client-ip",
        "proxy-client-ip",
        "$wsru",
    ],
    "Symfony, Laminas, Yii": ["x-original-url", "x-rewrite-url", "x-http-method-override"],
    "Go: chi, echo, gin": ["x-real-ip", "x-forwarded-protocol", "x-appengine-remote-addr"],
    "IIS, ASP.NET, Azure": [
        "front-end-https",
        "x-arr-clientcert",
        "x-original-host",
        "x-original-for",
        "x-waws-unencoded-url",
        "x-ms-client-principal",
        "x-ms-client-principal-id",
        "x-azure-clientip",
    ],
    "AWS": ["x-amzn-oidc-identity", "x-amzn-mtls-clientcert", "x-amzn-request-context"],
    "Google": ["x-goog-authenticated-user-email", "x-goog-iap-jwt-assertion", "x-endpoint-api-userinfo"],
    "Envoy, Istio, Linkerd, Dapr": [
        "x-envoy-original-path",
        "x-envoy-external-address",
        "x-forwarded-client-cert",
        "x-jwt-payload",
        "l5d-client-id",
        "dapr-caller-app-id",
    ],
    "Kong, APISIX": ["x-consumer-username", "x-credential-identifier", "x-authenticated-userid", "x-userinfo"],
    "oauth2-proxy, Authelia, authentik, Pomerium, Cloudflare, Tailscale": [
        "x-auth-request-user",
        "remote-groups",
        "x-authentik-username",
        "x-pomerium-jwt-assertion",
        "cf-access-jwt-assertion",
        "tailscale-user-login",
    ],
    "Grafana, Kubernetes, CouchDB, Jenkins": [
        "x-webauth-user",
        "x-remote-user",
        "x-remote-extra-x",
        "x-auth-couchdb-username",
        "x-forwarded-user",
    ],
    "WebSEAL, SiteMinder, Oracle Access Manager, CAS, Shibboleth": [
        "iv-user",
        "iv-remote-address",
        "sm-user",
        "sm-serversessionid",
        "oam-remote-user",
        "osso-user-dn",
        "cas-user",
        "eppn",
    ],
    "Vouch, Gatekeeper, Sandstorm, Replit": [
        "x-vouch-user",
        "x-auth-email",
        "x-auth-roles",
        "x-auth-username",
        "x-sandstorm-user-id",
        "x-replit-user-id",
    ],
    "Kubeflow, Snowflake, Loki, Red Hat": [
        "kubeflow-userid",
        "sf-context-current-user",
        "x-scope-orgid",
        "x-rh-identity",
    ],
    "Posit Connect, ShinyProxy": [
        "rstudio-connect-credentials",
        "posit-connect-user-session-token",
        "shiny-server-credentials",
        "x-rsc-request",
        "x-rstudio-request",
        "x-sp-userid",
    ],
    "Azure App Service, ASP.NET Core": [
        "disguised-host",
        "was-default-hostname",
        "x-appservice-proto",
        "ms-aspnetcore-clientcert",
    ],
    "Fly, Cloud Foundry, serverless-express, Dapr, WebObjects": [
        "fly-forwarded-proto",
        "x-cf-forwarded-url",
        "x-apigateway-event",
        "dapr-app-id",
        "x-webobjects-remote-user",
    ],
    "WebDAV, Rest.li": ["destination", "x-restli-method"],
    "overrides": [
        "x-override-url",
        "x-http-method",
        "x-method-override",
        "x-tunnel-method-override",
        "x-http-path-override",
    ],
    "misspelled by proxies": ["x-forward-for", "x-forwarded"],
    "RFC 9440": ["client-cert", "client-cert-chain"],
    "any name with punctuation that is folded": ["x_user", "a.b", "a~b", "x!y", "a+b", "a'b", "a|b"],
}
PASSING = [
    "accept-language",
    "b3",
    "baggage",
    "content-type",
    "cookie",
    "early-data",
    "idempotency-key",
    "if-none-match",
    "last-event-id",
    "mcp-session-id",
    "origin",
    "range",
    "smart-header",
    "referer",
    "sec-websocket-key",
    "user-agent",
    "via",
    "x-amz-meta-color",
    "x-api-key",
    "x-auth-token",
    "x-b3-traceid",
    "x-client-version",
    "x-correlation-id",
    "x-csrf-token",
    "x-ms-version",
    "x-request-id",
    "x-requested-with",
    "x1",
]


@pytest.mark.parametrize(("reader", "name"), [(reader, name) for reader, names in TRUSTED.items() for name in names])
def test_what_a_server_takes_from_its_proxy_is_known(reader: str, name: str) -> None:
    assert is_trusted_name(name.encode()), reader


@pytest.mark.parametrize("name", PASSING)
def test_what_is_a_callers_own_to_say_is_not(name: str) -> None:
    assert not is_trusted_name(name.encode())


@pytest.mark.parametrize("name", ["mcp-param-region", "mcp-param-seat_count", "mcp-param-client-ip"])
def test_a_field_for_the_argument_of_a_tool_passes(name: str) -> None:
    assert not is_trusted_name(name.encode())
    assert is_trusted_name(name.replace("mcp-", "mcp_").encode())
