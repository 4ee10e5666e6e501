// Makes the vectors of Express's cookie-session with the module itself: a request goes through the
// middleware, and what it sets is the vector. Called by make.py.

import { createRequire } from 'node:module'
import { EventEmitter } from 'node:events'
import path from 'node:path'

const require = createRequire(path.join(process.cwd(), 'x.js'))
const cookieSession = require('cookie-session')
const SECRET = 'a-secret-of-the-app', OLD = 'the-secret-before', OTHER = 'another-app'
const vectors = []

/** What a response of an app with these keys sets. */
function cookies (keys, payload, name = 'session') {
  const headers = {}
  const res = Object.assign(new EventEmitter(), {
    getHeader: (key) => headers[key],
    setHeader: (key, value) => { headers[key] = value },
    writeHead () {},
    headersSent: false
  })
  const req = { headers: {}, connection: {} }
  cookieSession({ name, keys })(req, res, () => { req.session = payload })
  res.writeHead(200)
  const value = (own) => headers['Set-Cookie'].find((line) => line.startsWith(`${own}=`))
    .split(';')[0].slice(own.length + 1)
  return { cookie: value(name), sig: value(`${name}.sig`) }
}

function add (name, made, expect, more = {}) {
  vectors.push({ name: `express, ${name}`, format: 'express', ...made, expect, ...more })
}

const login = { user: { id: 42, tenant: 'acme' }, views: 3 }
const mine = cookies([SECRET], login)
add('login', mine, 'ok', { payload: login })
add('other letters', cookies([SECRET], { name: 'Zoë 雪 ?>' }), 'ok', { payload: { name: 'Zoë 雪 ?>' } })
add('old key', cookies([OLD], login), 'ok', { payload: login })
add('first of several keys', cookies([SECRET, OLD], login), 'ok', { payload: login })
add('another key', cookies([OTHER], login), 'bad signature')
add('another name', cookies([SECRET], login, 'other'), 'bad signature')
add('another session', { ...cookies([SECRET], { user: 1 }), sig: mine.sig }, 'bad signature')
add('no signature', { cookie: mine.cookie }, 'no signature cookie')
process.stdout.write(JSON.stringify(vectors))
