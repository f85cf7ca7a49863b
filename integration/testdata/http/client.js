// Asks a server by Node's own client, kept alive, chunked, with trailers and with
// Expect, and says what went wrong.
const http = require('http');
const [host, port] = [process.argv[2], Number(process.argv[3])];
const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });

function ask(options, body) {
  return new Promise((resolve, reject) => {
    const r = http.request({ host, port, agent, timeout: 120000, ...options }, (res) => {
      let text = '';
      res.on('data', (d) => { text += d; });
      res.on('end', () => resolve({ status: res.statusCode, text, sum: res.headers['x-sum'] }));
      res.on('error', reject);
    });
    r.on('error', reject);
    r.on('timeout', () => r.destroy(new Error('timeout')));
    body ? body(r) : r.end();
  });
}

function check(what, got, want) {
  if (got !== want) { throw new Error(`${what}: got ${got}, want ${want}`); }
}

(async () => {
  for (let i = 0; i < 5; i++) {
    check('GET', (await ask({ path: `/public/${i}` })).text, `/public/${i} \n`);
    check('denied', (await ask({ path: '/secret' })).status, 403);
  }
  const chunked = await ask({ method: 'POST', path: '/public/chunks', headers: { Trailer: 'X-Check' } }, (r) => {
    for (let i = 0; i < 50; i++) { r.write('z'.repeat(i + 1)); }
    r.addTrailers({ 'X-Check': 'done' });
    r.end();
  });
  check('chunks', chunked.text, '/public/chunks \n');
  const expected = await ask({ method: 'POST', path: '/public/expect', headers: { Expect: '100-continue', 'Content-Length': 3 } }, (r) => {
    r.on('continue', () => r.end('abc'));
    r.flushHeaders();
  });
  check('expect', expected.text, '/public/expect \n');
  const denied = await ask({ method: 'POST', path: '/secret', headers: { Expect: '100-continue', 'Content-Length': 3 } }, (r) => {
    r.on('continue', () => { throw new Error('told to go on'); });
    r.flushHeaders();
  });
  check('expect, denied', denied.status, 403);
  check('after all', (await ask({ path: '/public/last' })).status, 200);
  agent.destroy();
  console.log('ok');
})().catch((e) => { console.error(e.message); process.exit(1); });
