// Starts the suite's server, whose path is the argument, on the loopback: by itself it listens on every interface, and it serves the files
// of its folder to whoever asks.

import net from 'node:net'
import process from 'node:process'
import { pathToFileURL } from 'node:url'

const listen = net.Server.prototype.listen
net.Server.prototype.listen = function (port) {
  return listen.call(this, Number(port), '127.0.0.1')
}

await import(pathToFileURL(process.argv[2]).href)
