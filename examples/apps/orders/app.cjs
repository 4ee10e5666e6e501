// Orders: an Express service for the shops of two merchants: REST, GraphQL, and a back office.
//
// Its team cached in Redis by hand, and kept sets of keys for all that a response depends on. Headers
// have replaced the sets (RFC 9875): a response says its groups (`Cache-Groups`), a write says which
// of them it has changed (`Cache-Group-Invalidation`), and a cache in front does the rest.

'use strict'

const fs = require('node:fs')
const process = require('node:process')
const { setTimeout: sleep } = require('node:timers/promises')

const cookieSession = require('cookie-session')
const express = require('express')
const { buildSchema, graphql } = require('graphql')

const QUERY_MS = 10
const MERCHANTS = { 'token-of-acme-0001': 'acme', 'token-of-globex-01': 'globex' }
const CLERKS = { ann: 'acme', cleo: 'globex' }

// The time of the day that is played, in seconds.
const now = () => Number(fs.readFileSync(process.env.APP_CLOCK, 'utf8'))

const orders = {}
for (const merchant of ['acme', 'globex']) {
  orders[merchant] = new Map()
  for (let id = 1; id <= 8; id += 1) {
    const customer = `${merchant} customer ${id % 4}`
    orders[merchant].set(id, { id, customer, total: 25 * id, state: id % 3 ? 'open' : 'sent' })
  }
}

// What takes its time in a legacy app.
async function query (merchant) {
  await sleep(QUERY_MS)
  return orders[merchant]
}

const app = express()
app.use(express.json())
app.use(express.urlencoded({ extended: false }))

function authenticate (request, response, next) {
  request.merchant = MERCHANTS[(request.get('authorization') ?? '').replace('Bearer ', '')]
  if (request.merchant) next()
  else response.status(401).json({ error: 'no valid token' })
}

// The groups of some orders, as a list of strings.
const groupsOf = (merchant, ids) => ids.map((id) => `"order-${merchant}-${id}"`).join(', ')
const groupOfAll = (merchant) => `"orders-${merchant}"`

function changed (response, merchant, id) {
  const groups = `${groupOfAll(merchant)}, ${groupsOf(merchant, [id])}`
  response.set('Cache-Group-Invalidation', groups)
}

const wanted = (rows, state) => [...rows.values()].filter((row) => !state || row.state === state)

app.get('/api/orders', authenticate, async ({ merchant, query: { state } }, response) => {
  const found = wanted(await query(merchant), state)
  response.set('Cache-Groups', groupOfAll(merchant))
  response.json(found)
})

app.get('/api/orders/:id', authenticate, async ({ merchant, params }, response) => {
  const order = (await query(merchant)).get(Number(params.id))
  if (!order) return response.status(404).json({ error: 'no such order' })
  response.set('Cache-Groups', groupsOf(merchant, [order.id]))
  response.json(order)
})

app.get('/api/customers/:name/total', authenticate, async ({ merchant, params }, response) => {
  const all = wanted(await query(merchant))
  const rows = all.filter(({ customer }) => customer.endsWith(params.name))
  const total = rows.reduce((sum, order) => sum + order.total, 0)
  response.set('Cache-Groups', groupOfAll(merchant))
  response.json({ customer: params.name, total })
})

app.put('/api/orders/:id/state', authenticate, ({ merchant, params, body }, response) => {
  const order = orders[merchant].get(Number(params.id))
  if (!order) return response.status(404).json({ error: 'no such order' })
  order.state = String(body.state)
  changed(response, merchant, order.id)
  response.json(order)
})

// GraphQL: the same orders for the page of a shop. A query is a POST, as most clients send it.
const schema = buildSchema(`
  type Order { id: Int!, customer: String!, total: Int!, state: String! }
  type Query { orders(state: String): [Order!]!, order(id: Int!): Order }
  type Mutation { setTotal(id: Int!, total: Int!): Order }
`)
const root = {
  orders: async ({ state }, { merchant }) => wanted(await query(merchant), state),
  order: async ({ id }, { merchant }) => (await query(merchant)).get(id),
  setTotal: ({ id, total }, { merchant, response }) => {
    const order = orders[merchant].get(id)
    if (!order) return null
    order.total = total
    changed(response, merchant, id)
    return order
  }
}

app.post('/graphql', authenticate, async ({ merchant, body }, response) => {
  const { query: source, variables: variableValues, operationName } = body
  const contextValue = { merchant, response }
  const sent = { source, variableValues, operationName }
  response.json(await graphql({ schema, rootValue: root, contextValue, ...sent }))
})

// The back office: pages for people, with the session in a signed cookie.
const session = cookieSession({ name: 'office', keys: [process.env.OFFICE_SECRET] })

app.get('/office/login', (request, response) => {
  response.type('html').send('<!doctype html><form method="post"><input name="user"></form>\n')
})

app.post('/office/login', session, ({ session, body }, response) => {
  if (!CLERKS[body.user]) return response.status(403).send('Who are you?\n')
  session.user = body.user
  session.since = now()
  response.redirect(303, '/office/orders')
})

app.get('/office/orders', session, async ({ session }, response) => {
  const merchant = CLERKS[session.user]
  if (!merchant) return response.redirect(302, '/office/login')
  const found = wanted(await query(merchant))
  const row = ({ id, customer, state }) => `<tr><td>${id}<td>${customer}<td>${state}`
  const head = `<!doctype html><p>${session.user} since ${session.since}</p>`
  response.set('Cache-Groups', groupOfAll(merchant))
  response.type('html').send(`${head}<table>\n${found.map(row).join('\n')}\n</table>\n`)
})

const server = app.listen(Number(process.env.PORT ?? 0), '127.0.0.1', () => {
  process.stdout.write(`listening on 127.0.0.1:${server.address().port}\n`)
})
process.on('SIGTERM', () => process.exit(0))
