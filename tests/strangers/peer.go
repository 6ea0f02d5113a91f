// A tunnel's end in Go, standard library only.
//
//	peer client HOST:15008 AUTHORITY CERT KEY   standard input goes up the tunnel, what comes back to standard output
//	peer server CERT KEY ROOTS                  terminates tunnels on :15008 by echo, prints who asked for what
package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
)

func client(server, authority, cert, key string) {
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		log.Fatal(err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{pair}, InsecureSkipVerify: true, NextProtos: []string{"h2"}}
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
	request := &http.Request{
		Method: http.MethodConnect,
		URL:    &url.URL{Scheme: "https", Host: server},
		Host:   authority,
		Header: http.Header{},
		Body:   io.NopCloser(os.Stdin),
	}
	answer, err := transport.RoundTrip(request)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Fprintln(os.Stderr, "status", answer.StatusCode)
	if _, err := io.Copy(os.Stdout, answer.Body); err != nil {
		log.Fatal(err)
	}
}

func echo(answer http.ResponseWriter, request *http.Request) {
	fmt.Println(request.TLS.PeerCertificates[0].URIs[0], request.Method, request.Host, request.Header.Get("Baggage"))
	flush := http.NewResponseController(answer)
	answer.WriteHeader(http.StatusOK)
	if err := flush.Flush(); err != nil {
		return
	}
	buffer := make([]byte, 65536)
	for {
		count, err := request.Body.Read(buffer)
		if count > 0 {
			answer.Write(buffer[:count])
			flush.Flush()
		}
		if err != nil {
			return
		}
	}
}

func server(cert, key, roots string) {
	pem, err := os.ReadFile(roots)
	if err != nil {
		log.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	config := &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool, MinVersion: tls.VersionTLS13}
	end := &http.Server{Addr: ":15008", Handler: http.HandlerFunc(echo), TLSConfig: config}
	log.Fatal(end.ListenAndServeTLS(cert, key))
}

func main() {
	if os.Args[1] == "client" {
		client(os.Args[2], os.Args[3], os.Args[4], os.Args[5])
	} else {
		server(os.Args[2], os.Args[3], os.Args[4])
	}
}
