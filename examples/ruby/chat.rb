# One plain request with nothing but Ruby's standard library.
require "json"
require "net/http"

uri = URI("#{ENV.fetch('INFERENCE_URL')}/v1/chat/completions")
headers = { "Authorization" => "Bearer #{ENV.fetch('INFERENCE_KEY')}", "Content-Type" => "application/json" }
body = {
  model: ENV.fetch("INFERENCE_MODEL_ID", "smollm2-135m-instruct"),
  max_tokens: 40,
  messages: [{ role: "user", content: "Name a colour of the sea." }]
}

response = Net::HTTP.post(uri, body.to_json, headers)
answer = JSON.parse(response.body)
abort "#{response.code} #{answer['error']['code']}: #{answer['error']['message']}" unless response.is_a?(Net::HTTPSuccess)
puts answer["choices"][0]["message"]["content"]
