// A small app, and a real sidecar in front of it.

import fs from 'node:fs'
import http from 'node:http'
import net from 'node:net'
import path from 'node:path'
import process from 'node:process'

import { listening, start } from '../tools.mjs'

const APP_MS = 40

async function freePort () {
  const server = net.createServer()
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address()
  await new Promise((resolve) => server.close(resolve))
  return port
}

function rules ({ port, admin, app, token }, routes) {
  return `watch = "200ms"

[listen]
address = "127.0.0.1:${port}"

[upstream]
url = "http://127.0.0.1:${app}"

[admin]
address = "127.0.0.1:${admin}"
${token ? `token = "${token}"\n` : ''}
[log]
level = "info"
format = "json"

[fields]
tenant = { header = "x-tenant-id" }

${routes}`
}

export const ROUTES = `[[routes]]
path = "/api/v1/campaigns"
ttl = "5m"
scope = "public"
key = ["tenant"]
tags = ["campaigns:{tenant}"]

[[routes]]
path = "/api/v1/campaigns/{id}"
ttl = "5m"
scope = "public"
key = ["tenant"]
tags = ["campaigns:{tenant}", "campaign:{tenant}:{id}"]

[[routes]]
path = "/api/v1/forms/{*rest}"
ttl = "5m"
scope = "public"
key = ["tenant"]
tags = ["forms:{tenant}"]
stale_while_revalidate = "5m"

[[routes]]
path = "/api/v1/dashboard"
ttl = "30s"
key = ["tenant"]
tags = ["campaigns:{tenant}", "forms:{tenant}"]

[[purges]]
path = "/api/v1/campaigns/{*rest}"
tags = ["campaigns:{tenant}"]
`

function startApp () {
  const server = http.createServer((request, response) => {
    request.resume()
    setTimeout(() => response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ path: request.url, text: 'x'.repeat(900) })), APP_MS)
  })
  return new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(server)))
}

export class Scene {
  // `name` tells its folder from those of others.
  static async start (folder, binary, name, token = null) {
    const scene = new Scene()
    scene.folder = path.join(folder, name)
    fs.mkdirSync(scene.folder, { recursive: true })
    scene.binary = binary
    scene.token = token
    scene.asked = 0
    scene.server = await startApp()
    scene.app = scene.server.address().port
    scene.port = await freePort()
    scene.admin = await freePort()
    scene.file = path.join(scene.folder, 'proxy.toml')
    scene.write(ROUTES)
    scene.agent = new http.Agent({ keepAlive: true })
    await scene.run()
    return scene
  }

  get url () {
    return `http://127.0.0.1:${this.admin}/`
  }

  // Overwrites the file of rules, as an editor does.
  write (routes) {
    this.text = rules(this, routes)
    fs.writeFileSync(this.file, this.text)
  }

  // The number of the line that reads so.
  line (wanted) {
    const at = this.text.split('\n').indexOf(wanted)
    if (at < 0) throw new Error(`no line of the rules reads ${wanted}`)
    return at + 1
  }

  // The line at which the route of this path begins.
  routeLine (route) {
    return this.line(`path = "${route}"`) - 1
  }

  async run () {
    const env = { ...process.env }
    delete env.RUST_LOG
    const log = path.join(this.folder, 'sidecache.log')
    this.sidecar = (await start('the sidecar', log, [path.resolve(this.binary), '--config', path.basename(this.file)], { env, cwd: path.dirname(this.file) }, listening)).child
  }

  async kill () {
    const gone = new Promise((resolve) => this.sidecar.once('exit', resolve))
    this.sidecar.kill('SIGKILL')
    await gone
  }

  async end () {
    await this.kill()
    this.agent.destroy()
    this.server.closeAllConnections()
    this.server.close()
  }

  // One request through the sidecar: what X-Cache says.
  ask (target, { method = 'GET', headers = {}, tenant = 'acme' } = {}) {
    this.asked += 1
    return new Promise((resolve, reject) => {
      const options = { host: '127.0.0.1', port: this.port, path: target, method, agent: this.agent, headers: { 'x-tenant-id': tenant, ...headers } }
      const request = http.request(options, (response) => {
        response.resume()
        response.on('end', () => resolve(response.headers['x-cache']))
      })
      request.on('error', reject)
      request.end()
    })
  }

  // Asks until the answer comes from the cache: a fill is stored a little after its answer.
  async warm (target) {
    const end = Date.now() + 5000
    let last
    while (Date.now() < end) {
      last = await this.ask(target)
      if (last === 'HIT') return
    }
    throw new Error(`${target} is never a HIT; the last was ${last}`)
  }
}
