# Tells, as JSON, what Rack says of a request, with the middleware that Rails and Sinatra have by default.
require 'json'
require 'rack'

use Rack::MethodOverride

run(lambda do |env|
  request = Rack::Request.new(env)
  fields = env.select { |name, _| name.start_with?('HTTP_') }.transform_keys { |name| name[5..] }
  view = {
    path: "#{request.script_name}|#{request.path_info}",
    method: request.request_method,
    scheme: request.scheme,
    host: request.host_with_port,
    client: request.ip,
    user: env['REMOTE_USER'].to_s,
    fields: fields
  }
  [200, { 'content-type' => 'application/json' }, [JSON.generate(view)]]
end)
