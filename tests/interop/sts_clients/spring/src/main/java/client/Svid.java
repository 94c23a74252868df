package client;

import java.io.ByteArrayInputStream;
import java.net.Socket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyFactory;
import java.security.KeyStore;
import java.security.PrivateKey;
import java.security.cert.Certificate;
import java.security.cert.CertificateException;
import java.security.cert.CertificateFactory;
import java.security.cert.X509Certificate;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.Base64;
import java.util.Collection;
import java.util.List;

import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLEngine;
import javax.net.ssl.TrustManager;
import javax.net.ssl.TrustManagerFactory;
import javax.net.ssl.X509ExtendedTrustManager;
import javax.net.ssl.X509TrustManager;

/** TLS with an X.509-SVID, towards one SPIFFE ID. An SVID has a URI and no DNS name, so the URI is compared. */
final class Svid {

    private static final int URI = 6; // of a GeneralName, RFC 5280 section 4.2.1.6

    static SSLContext context(String certificate, String key, String bundle, String peer) throws Exception {
        KeyStore own = KeyStore.getInstance("PKCS12");
        own.load(null, null);
        own.setKeyEntry("svid", privateKey(key), new char[0], certificates(certificate).toArray(new Certificate[0]));
        KeyManagerFactory keys = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
        keys.init(own, new char[0]);
        KeyStore trusted = KeyStore.getInstance("PKCS12");
        trusted.load(null, null);
        int number = 0;
        for (Certificate authority : certificates(bundle)) {
            trusted.setCertificateEntry("authority" + number++, authority);
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(trusted);
        SSLContext context = SSLContext.getInstance("TLSv1.3");
        X509TrustManager chains = (X509TrustManager) trust.getTrustManagers()[0];
        context.init(keys.getKeyManagers(), new TrustManager[] {new OnePeer(chains, peer)}, null);
        return context;
    }

    private static Collection<? extends Certificate> certificates(String file) throws Exception {
        byte[] pem = Files.readAllBytes(Path.of(file));
        return CertificateFactory.getInstance("X.509").generateCertificates(new ByteArrayInputStream(pem));
    }

    private static PrivateKey privateKey(String file) throws Exception {
        String body = Files.readString(Path.of(file)).replaceAll("-----[A-Z ]+-----", "");
        byte[] der = Base64.getMimeDecoder().decode(body);
        return KeyFactory.getInstance("EC").generatePrivate(new PKCS8EncodedKeySpec(der));
    }

    private static final class OnePeer extends X509ExtendedTrustManager {
        private final X509TrustManager chains;
        private final String peer;

        OnePeer(X509TrustManager chains, String peer) {
            this.chains = chains;
            this.peer = peer;
        }

        private void check(X509Certificate[] chain, String kind) throws CertificateException {
            chains.checkServerTrusted(chain, kind);
            Collection<List<?>> names = chain[0].getSubjectAlternativeNames();
            List<?> uris = names == null ? List.of()
                : names.stream().filter(name -> name.get(0).equals(URI)).map(name -> name.get(1)).toList();
            if (!uris.equals(List.of(peer))) {
                throw new CertificateException("another workload answers");
            }
        }

        @Override
        public void checkServerTrusted(X509Certificate[] chain, String kind, SSLEngine engine)
            throws CertificateException {
            check(chain, kind);
        }

        @Override
        public void checkServerTrusted(X509Certificate[] chain, String kind, Socket socket)
            throws CertificateException {
            check(chain, kind);
        }

        @Override
        public void checkServerTrusted(X509Certificate[] chain, String kind) throws CertificateException {
            check(chain, kind);
        }

        @Override
        public void checkClientTrusted(X509Certificate[] chain, String kind, SSLEngine engine)
            throws CertificateException {
            throw new CertificateException("this is a client");
        }

        @Override
        public void checkClientTrusted(X509Certificate[] chain, String kind, Socket socket)
            throws CertificateException {
            throw new CertificateException("this is a client");
        }

        @Override
        public void checkClientTrusted(X509Certificate[] chain, String kind) throws CertificateException {
            throw new CertificateException("this is a client");
        }

        @Override
        public X509Certificate[] getAcceptedIssuers() {
            return chains.getAcceptedIssuers();
        }
    }
}
