// Tells, as JSON, what Express says of a request, with the middleware that its guides add for method overrides.
const express = require('express')
const methodOverride = require('method-override')

const app = express()
app.use(methodOverride())
app.use((request, response) => {
  response.json({
    path: request.baseUrl + '|' + request.path,
    method: request.method,
    scheme: request.protocol,
    host: request.get('host'),
    client: request.ip,
    user: '',
    fields: request.headers,
  })
})
app.listen(Number(process.argv[2]), '127.0.0.1')
