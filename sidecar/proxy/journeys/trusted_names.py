"""Field names that servers, frameworks and applications trust from the proxy in front of them.

To an agent the sidecar *is* that proxy: it connects from loopback, which many servers trust by default. A caller's
field of such a name could make the agent serve another path, method, scheme, host, client or user than the sidecar
judged, so none is forwarded to an agent or a mesh peer. Pure, and evaluated once for each distinct head.

The list is grouped by purpose; each group names software that reads its fields. Patterns cover variants, such as every
name with the ending of a client's address. Names are in lower case.
"""

from __future__ import annotations

import re
from typing import Final

# CGI, WSGI, Rack and PHP fold "-" and other punctuation into "_", so that two names become one variable: gunicorn took
# the path from `SCRIPT_NAME`, Spring Cloud Function the function from `spring.cloud.function.definition`, WebSphere the
# user from `$WSRU`. RFC 9110 section 16.3.2.1 advises letters, digits and hyphens; only such names pass.
_PLAIN: Final = re.compile(rb"[a-z0-9-]+")
# The rest of such a name is a tool's argument. On a route of MCP the field is compared with the message.
_TOOL_ARGUMENT: Final = re.compile(rb"mcp-param-[a-z0-9_-]+")

_EXACT: Final = frozenset(
    {
        # Path: CGI variables, mod_wsgi, Flask's ReverseProxied, Catalyst, Mojolicious, Home Assistant, Traefik, Posit.
        # `Destination` is the second path of WebDAV's COPY and MOVE (RFC 4918 section 10.3), which no route judges.
        b"base-url",
        b"destination",
        b"path-info",
        b"script-name",
        b"x-base-path",
        b"x-base-url",
        b"x-ingress-path",
        b"x-matched-path",
        b"x-path-info",
        b"x-pathname",
        b"x-replaced-path",
        b"x-request-base",
        b"x-request-path",
        b"x-request-uri",
        b"x-request-url",
        b"x-rsc-request",
        b"x-script-name",
        b"x-traversal-path",
        b"x-uri",
        b"x-url",
        # Method: OData, Rest.li.
        b"x-http-method",
        b"x-method",
        b"x-restli-method",
        # Scheme: mod_wsgi, Echo, Jetty, Microsoft's front ends, WordPress.
        b"front-end-https",
        b"https",
        b"x-https",
        b"x-proto",
        b"x-protocol",
        b"x-scheme",
        b"x-url-scheme",
        # Host: mod_wsgi, Azure App Service and many others.
        b"disguised-host",
        b"was-default-hostname",
        b"x-host",
        b"x-http-host-override",
        b"x-real-host",
        b"x-real-port",
        # Client, besides the endings below. HTTP_CLIENT_IP is Rails'.
        b"client-ip",
        b"true-client-ip",
        b"x-cluster-client",
        # User: APISIX, Kong, CAS, Shibboleth, Keycloak's Gatekeeper, Red Hat; tenant of Loki and Mimir.
        b"cas-user",
        b"eppn",
        b"shiny-server-credentials",
        b"x-anonymous-consumer",
        b"x-auth-email",
        b"x-auth-family-name",
        b"x-auth-given-name",
        b"x-auth-groups",
        b"x-auth-roles",
        b"x-auth-subject",
        b"x-id-token",
        b"x-rh-identity",
        b"x-scope-orgid",
        b"x-userinfo",
        # Function: Dapr calls the application of this name.
        b"dapr-app-id",
        # Environment: httpoxy sets HTTP_PROXY for the requests of a CGI program.
        b"proxy",
    }
)

_BEGINNINGS: Final = (
    # The original request before a proxy changed it: read by most software.
    b"forwarded",
    b"x-forward",
    b"x-original-",
    b"x-originating-",
    b"x-override-",
    b"x-real-ip",
    b"x-rewrite-",
    # Other proxies' own: Envoy, Linkerd, Istio, IIS (ARR, App Service, iisnode, ASP.NET Core), nginx, Rack::Sendfile,
    # repoze.vhm, Jetty, WebLogic, WebObjects, CouchDB, Dapr, Cloud Foundry.
    b"dapr-caller-",
    b"l5d-",
    b"ms-aspnetcore-",
    b"proxy-",
    b"wl-proxy-",
    b"x-accel-",
    b"x-appservice-",
    b"x-arr-",
    b"x-cf-",
    b"x-couchdb-",
    b"x-envoy-",
    b"x-iisnode-",
    b"x-istio-",
    b"x-proxied-",
    b"x-proxy",
    b"x-sendfile",
    b"x-vhm-",
    b"x-waws-",
    b"x-webobjects-",
    # Content networks and clouds in front of their applications.
    b"cf-",
    b"cloudfront-",
    b"fastly-",
    b"fly-forwarded-",
    b"x-amzn-lambda-context",
    b"x-amzn-mtls-",
    b"x-amzn-oidc-",
    b"x-amzn-request-context",
    b"x-apigateway-",  # serverless-express takes the whole event from it
    b"x-appengine-",
    b"x-azure-",
    b"x-cloudscheduler",
    b"x-cloudtasks-",
    b"x-endpoint-api-",
    b"x-goog-authenticated-user-",
    b"x-goog-iap-",
    b"x-ms-client-principal",
    b"x-ms-original-",
    b"x-ms-token-",
    b"x-netlify-",
    b"x-nf-",
    b"x-vercel-",
    # Frameworks' messages to themselves: Next.js (CVE-2025-29927), React Router (CVE-2025-43865), Astro.
    b"x-astro-",
    b"x-invoke-",
    b"x-middleware-",
    b"x-nextjs-",
    b"x-now-",
    b"x-react-router-",
    # User, from gateways with a login: WebSEAL (iv-), Oracle's, SiteMinder (sm-), ShinyProxy (x-sp-user).
    b"iv-",
    b"kubeflow-",
    b"oam-",
    b"oidc-",
    b"osso-",
    b"posit-connect-",
    b"remote-",
    b"rstudio-connect-",
    b"sf-context-",
    b"shib-",
    b"sm-",
    b"tailscale-",
    b"x-auth-couchdb-",
    b"x-auth-request-",
    b"x-auth-user",
    b"x-authenticated-",
    b"x-authentik-",
    b"x-consumer-",
    b"x-credential-",
    b"x-jwt-",
    b"x-oidc-",
    b"x-pomerium-",
    b"x-remote-",
    b"x-replit-user-",
    b"x-rstudio-",
    b"x-sandstorm-",
    b"x-shib-",
    b"x-sp-user",
    b"x-vouch-",
    b"x-webauth-",
    # The client's certificate: RFC 9440, Envoy, Tomcat's SSLValve; by convention nginx and Apache.
    b"client-cert",
    b"ssl-",
    b"x-client-cert",
    b"x-client-dn",
    b"x-client-san",
    b"x-client-ssl",
    b"x-client-subject",
    b"x-client-verif",
    b"x-spiffe-",
    b"x-ssl-",
    b"x-tls-client-",
    # Function: Spring Cloud (CVE-2022-22963), if a proxy behind the sidecar turns its dots into hyphens.
    b"spring-cloud-function-",
)

_ENDINGS: Final = (
    b"-client-ip",
    b"-clientip",
    b"-connecting-ip",
    b"-jwt-assertion",
    b"-override",
    b"-real-ip",
    b"-remote-addr",
    b"-remote-ip",
    b"-source-ip",
    b"-user-ip",
)


def is_trusted_name(name: bytes) -> bool:
    """Return True if a server may trust a field of this (lower-case) name as its proxy's, or misread the name."""
    if _TOOL_ARGUMENT.fullmatch(name):
        return False
    return name in _EXACT or name.startswith(_BEGINNINGS) or name.endswith(_ENDINGS) or not _PLAIN.fullmatch(name)
