<?php
// Tells, as JSON, what PHP says of a request: `php -S ADDRESS index.php`.
$fields = [];
foreach ($_SERVER as $name => $value) {
    if (str_starts_with($name, 'HTTP_')) {
        $fields[substr($name, 5)] = $value;
    }
}
header('Content-Type: application/json');
echo json_encode([
    'path' => '|' . parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH),
    'method' => $_SERVER['REQUEST_METHOD'],
    'scheme' => empty($_SERVER['HTTPS']) ? 'http' : 'https',
    'host' => $_SERVER['HTTP_HOST'],
    'client' => $_SERVER['REMOTE_ADDR'],
    'user' => $_SERVER['REMOTE_USER'] ?? '',
    'fields' => $fields,
]);
