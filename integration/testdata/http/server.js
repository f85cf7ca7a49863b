// Answers in ways that HTTP/1 servers may.
const http = require('http');
// On a busy machine clients may be slow to go on.
http.createServer({ keepAliveTimeout: 120000 }, (req, res) => {
  switch (req.url) {
    case '/public/hints':
      res.writeEarlyHints({ link: '</style.css>; rel=preload' });
      res.end('hinted');
      break;
    case '/public/trailers':
      res.writeHead(200, { Trailer: 'X-Check' });
      res.write('a');
      res.write('b'.repeat(70000));
      res.addTrailers({ 'X-Check': 'done' });
      res.end();
      break;
    case '/public/early': // an answer before the body, which is not wanted
      res.writeHead(413, { Connection: 'close' });
      res.end('too large');
      break;
    case '/public/none':
      res.writeHead(204);
      res.end();
      break;
    case '/public/same':
      res.writeHead(304, { 'Content-Length': 10 });
      res.end();
      break;
    case '/public/until-close':
      res.shouldKeepAlive = false;
      res.useChunkedEncodingByDefault = false;
      res.writeHead(200, { Connection: 'close' });
      res.end('c'.repeat(100000));
      break;
    default:
      res.end(`${req.method} ${req.url}`);
  }
}).on('checkExpectation', (req, res) => { res.writeHead(417); res.end(); })
  .listen(Number(process.argv[2]), '::');
